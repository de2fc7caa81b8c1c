"""Every UNSUBD_* setting in one table: read once, all problems reported together, no value in a message.

Any setting may come from a file: NAME_FILE names it (for secrets, so that they stay out of the environment). Four
families carry a name of yours: UNSUBD_IMAP_<NAME>_PASSWORD, UNSUBD_IMAP_<NAME>_OAUTH, UNSUBD_IN_<PROVIDER> and
UNSUBD_IN_<PROVIDER>_<NAME>.
"""

import os
import re
import stat
from collections.abc import Mapping
from datetime import date
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveInt, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from handlers.errors import ConfigError
from handlers.tag import AddressTemplate, Keyring
from worker.server import connect, is_cluster, node_url

_PREFIX = "UNSUBD_"
_MAX_SOCKET_PATH = 107  # sun_path, unix(7)
_IMAP_PASSWORD = re.compile(r"UNSUBD_IMAP_([A-Z0-9_]+)_PASSWORD")
_IMAP_OAUTH = re.compile(r"UNSUBD_IMAP_([A-Z0-9_]+)_OAUTH")
_WEBHOOK = re.compile(r"UNSUBD_IN_([A-Z0-9]+)(?:_([A-Z0-9_]+))?")
_PROOF = re.compile(r"-----BEGIN [A-Z ]+-----[^-]*-----END [A-Z ]+-----|\S+")  # a PEM block is one proof, lines and all
_URL_SECRET = re.compile(r"(://[^\s/:@]*:)\S*(?=@)|(\b(?:sentinel_)?password=)[^\s&]*")
_FAMILIES = {
    "imap_passwords": "UNSUBD_IMAP_<NAME>_PASSWORD",
    "imap_oauths": "UNSUBD_IMAP_<NAME>_OAUTH",
    "webhook_proofs": "UNSUBD_IN_<PROVIDER>[_<NAME>]",
}


def setting_name(field: str) -> str:
    """Return the environment variable of a field of `Settings`, or its family's pattern."""
    return _FAMILIES.get(field, _PREFIX + field.upper())


def _default_data_dir() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "unsubd"


class Settings(BaseSettings):
    """What the operator decided. The description of each field is its line in the README's table."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, hide_input_in_errors=True, env_ignore_empty=True, extra="forbid"
    )

    redis_url: str | None = Field(
        None, description="Redis or Valkey for queue and accounts; unset: the embedded Valkey"
    )
    store_url: str | None = Field(
        None, description="Redis, Valkey or a Cluster (redis+cluster://) for suppressions and ledger; unset: the same"
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="folder of the embedded Valkey, its key and token"
    )
    secret_keys: SecretStr = Field(SecretStr(""), description="keys that sign tags: hex, comma-separated, newest first")
    address: str | None = Field(None, description="template of the unsubscribe address, e.g. u+{tag}@unsub.example.com")
    public_url: str | None = Field(
        None, description="https base of the links in headers, e.g. https://unsub.example.com"
    )
    http: str = Field("127.0.0.1:8125", description="host:port of the web server")
    trusted_proxies: str = Field(
        "", description="addresses or networks of proxies whose X-Forwarded-For is believed, separated by spaces"
    )
    admin_token: SecretStr = Field(
        SecretStr(""), description="opens the console; made in the data folder when embedded"
    )
    viewer_token: SecretStr = Field(SecretStr(""), description="opens the console for looking only; unset: nobody")
    ops_http: str | None = Field(
        None, description="host:port of console, metrics and API page alone; unset: on UNSUBD_HTTP, beside the rest"
    )
    auth_proxy_header: str = Field(
        "", description="header in which a trusted proxy names the operator it let in, e.g. X-Remote-User"
    )
    imap_url: str = Field(
        "", description="mailboxes to poll: imaps://user@host/INBOX#name, several separated by spaces"
    )
    imap_password: SecretStr = Field(SecretStr(""), description="password for every mailbox without one of its own")
    imap_oauth: Path | None = Field(
        None, description="JSON file (0600) of the OAuth login of every mailbox without a login of its own"
    )
    imap_ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the IMAP server's certificate"
    )
    imap_backlog: str = Field(
        "ask", description="a full mailbox seen for the first time: ask, all, or from a date 2026-11-21"
    )
    imap_untagged: Literal["leave", "process"] = Field(
        "leave",
        description="mail that is not ours: leave it (what asks in words is copied to quarantine), or process:"
        " quarantine and mark it",
    )
    imap_processed: str = Field("Processed", description="folder that handled mail is moved to")
    poll_interval_s: PositiveInt = Field(60, description="seconds between two looks at a mailbox, besides IDLE")
    maildir: Path | None = Field(
        None, description="Maildir to take mail from; embedded default: a folder in the data folder"
    )
    ses_queue_url: str | None = Field(
        None,
        description="SQS queue that SES's notifications come into (pip install 'unsubd[ses]'):"
        " https://sqs.<region>.amazonaws.com/<account>/<name>",
    )
    lmtp: str | None = Field(
        None, description="where to take mail from a mail server by LMTP: unix:/path, or host:port on loopback"
    )
    policy: str | None = Field(
        None,
        description="where Postfix asks before each recipient (policy service): unix:/path, or host:port on loopback",
    )
    milter: str | None = Field(
        None,
        description="where a mail server has its mail stamped (milter): unix:/path, or host:port on loopback",
    )
    authserv_id: str = Field(
        "", description="name under which our own mail server writes Authentication-Results; unset: none is believed"
    )
    reporters: str = Field("", description="domains whose authenticated complaints count globally, separated by spaces")
    feedback_loops: str = Field(
        "",
        description="sources that only feedback loops can reach, e.g. imap:fbl relay:yahoo: complaints count globally",
    )
    queue_limit: PositiveInt = Field(5000, description="jobs in the queue at which sources wait instead of adding more")
    workers: PositiveInt = Field(1, description="RQ worker processes that unsubd run and unsubd work start")
    quarantine_days: PositiveInt = Field(90, description="days that the quarantine keeps a message nobody settled")
    quarantine_bytes: PositiveInt = Field(
        268435456, description="memory of the quarantine, a quarter of it for one source and reason; beyond, it shrinks"
    )
    ledger_days: PositiveInt = Field(
        90, description="days that the ledger stays in the store; older months move to UNSUBD_ARCHIVE_DIR"
    )
    archive_dir: Path | None = Field(
        None, description="folder of the ledger's hash-chained files; unset: ledger in the data folder"
    )
    log: Literal["json", "console", "logfmt"] | None = Field(
        None, description="how the journal is written: json, console, logfmt; unset: console on a terminal, else logfmt"
    )
    min_replicas: NonNegativeInt = Field(
        0,
        description="replicas that must have a write (requests, senders, keys, lists) before anybody hears that it is kept",
    )
    allow_weak_durability: bool = Field(False, description="1: start although the server may lose accepted requests")
    canary_smtp_url: SecretStr | None = Field(
        None, description="server that unsubd doctor --canary mails by: smtp[s]://user:password@host:port"
    )
    imap_passwords: dict[str, SecretStr] = Field({}, description="password of the mailbox that its URL names #name")
    imap_oauths: dict[str, Path] = Field({}, description="JSON file (0600) of the OAuth login of that mailbox")
    webhook_proofs: dict[str, SecretStr] = Field(
        {}, description="proofs that this webhook may bring, separated by spaces"
    )

    @field_validator("data_dir", "maildir", "imap_oauth", "archive_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else value

    @field_validator("imap_oauths")
    @classmethod
    def _all_absolute(cls, value: dict[str, Path]) -> dict[str, Path]:
        return {name: path.expanduser().absolute() for name, path in value.items()}

    @field_validator("secret_keys")
    @classmethod
    def _hex(cls, value: SecretStr) -> SecretStr:
        for number, key in enumerate(_words(value), 1):
            if not re.fullmatch(r"(?:[0-9a-fA-F]{2}){16,}", key):
                raise ValueError(f"key {number} of {len(key)} characters: expected at least 32 hex digits")
        return value

    @field_validator("address")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None:
            AddressTemplate.parse(value)
        return value

    @field_validator("http", "ops_http")
    @classmethod
    def _host_port(cls, value: str | None) -> str | None:
        if value is None:
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("expected host:port, e.g. 127.0.0.1:8125")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for word in value.split():
            try:
                ip_network(word)
            except ValueError:
                raise ValueError("expected addresses or networks, e.g. 127.0.0.1 10.0.0.0/24") from None
        return value

    @field_validator("ses_queue_url")
    @classmethod
    def _queue(cls, value: str | None) -> str | None:
        if value is not None:
            from handlers.providers.sqs import QueueAddress  # with cryptography, which no other command waits for

            QueueAddress.parse(value)
        return value

    @field_validator("lmtp", "policy", "milter")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is not None and (path := unix_path(value)) is not None:
            if not path.is_absolute() or len(os.fsencode(path)) > _MAX_SOCKET_PATH:
                raise ValueError(f"expected unix: and an absolute path of at most {_MAX_SOCKET_PATH} octets")
        elif value is not None and not _is_loopback_port(value):
            raise ValueError("expected unix:/path, or host:port on loopback, e.g. 127.0.0.1:2424: it has no password")
        return value

    @field_validator("public_url")
    @classmethod
    def _public(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("https", "http") or not urlsplit(value).hostname):
            raise ValueError("expected a URL, e.g. https://unsub.example.com")
        return value.rstrip("/") if value else value

    @field_validator("redis_url", "store_url")
    @classmethod
    def _redis(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and is_cluster(value) and info.field_name == "redis_url":
            raise ValueError("expected one server: only UNSUBD_STORE_URL may be a Cluster")
        try:
            connect(node_url(value or "redis://"))  # a Cluster would be asked for its nodes
        except ValueError:
            # Without its cause: a password that is not percent-encoded would be in it.
            raise ValueError(
                "expected redis://, rediss:// or unix://, e.g. redis://127.0.0.1:6379/0,"
                " or redis+sentinel://host:26379,host:26379/name/0"
            ) from None
        return value

    @field_validator("imap_backlog")
    @classmethod
    def _backlog(cls, value: str) -> str:
        if value not in ("ask", "all"):
            try:
                date.fromisoformat(value)
            except ValueError:
                raise ValueError("expected ask, all, or a date such as 2026-11-21") from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` gives and nothing else: it has read the environment, files and families included."""
        return (init_settings,)

    @property
    def listens(self) -> dict[str, str]:
        """Where mail servers find us: part -> address."""
        return {part: at for part in ("lmtp", "policy", "milter") if (at := getattr(self, part))}

    @property
    def archive(self) -> Path:
        """The folder of the ledger's files."""
        return self.archive_dir or self.data_dir / "ledger"

    @property
    def drop_folder(self) -> Path | None:
        """Return the Maildir of our own in the data folder; None when mail comes from elsewhere."""
        return self.data_dir / "maildir" if self.embedded and self.maildir is None else None

    @property
    def embedded(self) -> bool:
        """Say whether the embedded Valkey is used."""
        return self.redis_url is None

    def keys(self) -> Keyring:
        """Return the master keys, newest first; none is allowed here, whoever signs complains."""
        return Keyring(tuple(bytes.fromhex(key) for key in _words(self.secret_keys)))

    def template(self) -> AddressTemplate:
        """Errors: ConfigError  UNSUBD_ADDRESS is not set."""
        if self.address is None:
            raise ConfigError("UNSUBD_ADDRESS: not set, expected e.g. u+{tag}@unsub.example.com")
        return AddressTemplate.parse(self.address)

    def proofs(self, provider: str, name: str) -> list[str] | None:
        """Return the proofs that a webhook source accepts, None when it is not configured."""
        value = self.webhook_proofs.get(f"{provider}:{name}".lower())
        return _PROOF.findall(value.get_secret_value()) if value else None


def unix_path(address: str) -> Path | None:
    """Return the path of `unix:/path`, None for another kind of address."""
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None


def _is_loopback_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return False
    if host == "localhost":
        return True
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return False  # where would the port begin?
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _words(value: SecretStr) -> list[str]:
    return [word.strip() for word in value.get_secret_value().split(",") if word.strip()]


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the settings of this process, read from the environment.

    Errors:  ConfigError  one line per problem, all of them.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    values = _with_files(environ, problems)
    named = {
        "imap_passwords": _named(_IMAP_PASSWORD, values),
        "imap_oauths": _named(_IMAP_OAUTH, values),
        "webhook_proofs": _webhook_proofs(values),
    }
    plain = {field: values[name] for field, name in _plain_names().items() if values.get(name)}
    try:
        settings = Settings(**{**plain, **{k: v for k, v in named.items() if v}, **overrides})
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0]) if problem["loc"] else "settings"
            message = problem["msg"].removeprefix("Value error, ").removeprefix("UNSUBD_ADDRESS: ")
            problems.append(f"{_PREFIX}{name.upper()}: {message}")
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _with_files(environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    values = {name: value for name, value in environ.items() if name.startswith(_PREFIX) and value}
    for name, path in list(values.items()):
        if name.endswith("_FILE") and name != "UNSUBD_IMAP_CA_FILE":
            plain = name.removesuffix("_FILE")
            if plain in values:
                problems.append(f"{plain} and {name}: both are set, expected one of them: unset the other")
                continue
            try:
                values[plain] = Path(path).read_text().strip()
            except OSError as error:
                problems.append(f"{name}: {path}: {error.strerror}, expected a file we may read")
            except UnicodeDecodeError:
                problems.append(f"{name}: {path}: not UTF-8, expected a text file")
    return values


def _plain_names() -> dict[str, str]:
    """Field -> environment variable of every setting that is no family."""
    return {field: setting_name(field) for field in Settings.model_fields if field not in _FAMILIES}


def _named(family: re.Pattern[str], values: Mapping[str, str]) -> dict[str, str]:
    return {match[1].lower(): value for name, value in values.items() if (match := family.fullmatch(name))}


def _webhook_proofs(values: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{match[1]}:{match[2] or 'default'}".lower(): value
        for name, value in values.items()
        if (match := _WEBHOOK.fullmatch(name)) and not name.endswith("_FILE")
    }


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """Return the UNSUBD_ names that no setting claims: usually misspelt."""
    known = set(_plain_names().values())
    return sorted(
        name
        for name in environ
        if name.startswith(_PREFIX)
        and name.removesuffix("_FILE") not in known
        and name not in known
        and not any(family.fullmatch(name.removesuffix("_FILE")) for family in (_IMAP_PASSWORD, _IMAP_OAUTH, _WEBHOOK))
    )


def shown(value: object) -> str:
    """Return a setting's value as it may be printed: without its secret, not even one inside a URL.

    Example:
        >>> shown("redis://:s3cret@redis.example.com/0")
        'redis://:***@redis.example.com/0'
    """
    return "" if value is None else _URL_SECRET.sub(lambda match: f"{match[1] or match[2]}***", str(value))


def too_open(path: Path) -> bool:
    """Say whether a secret file may be read by anybody but us: its owner, or the group that root shows a file of its own to.

    Why:     the second is how Kubernetes mounts a secret for a user that is not root (fsGroup).
    """
    if not path.exists():
        return False
    facts = path.stat()
    shown_to_us = facts.st_uid == 0 and os.geteuid() != 0 and facts.st_gid == os.getegid()
    others = stat.S_IRWXO | (stat.S_IWGRP if shown_to_us else stat.S_IRWXG)
    return bool(facts.st_mode & others)
