"""Settings: read once, every problem at once, no secret in any message."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import ConfigError
from worker.settings import Settings, load_settings, setting_name, shown, too_open, unknown_names
from worker.sources.imap import MailboxAddress

KEY, OTHER_KEY = "ab" * 32, "cd" * 20


def refused(environ: Mapping[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ)
    return str(caught.value).splitlines()


def test_an_empty_environment_is_the_embedded_default() -> None:
    settings = load_settings({})

    assert settings.embedded
    assert (settings.http, settings.imap_backlog, settings.workers) == ("127.0.0.1:8125", "ask", 1)
    assert settings.keys().masters == ()


@pytest.mark.parametrize("name", ["UNSUBD_REDIS_URL", "UNSUBD_MAILDIR", "UNSUBD_SECRET_KEYS", "UNSUBD_WORKERS"])
def test_an_empty_value_counts_as_not_set(name: str) -> None:
    assert load_settings({name: ""}).model_fields_set == set()


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSUBD_HTTP", "0.0.0.0:1")
    monkeypatch.setenv("unsubd_workers", "7")

    settings = load_settings({"UNSUBD_POLL_INTERVAL_S": "5"})

    assert (settings.http, settings.workers, settings.poll_interval_s) == ("127.0.0.1:8125", 1, 5)
    assert load_settings().http == "0.0.0.0:1"


def test_data_dir_follows_the_xdg_folder_and_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert load_settings({}).data_dir == Path("/state/unsubd")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/jo")
    assert load_settings({}).data_dir == Path("/home/jo/.local/state/unsubd")


def test_overrides_win() -> None:
    assert load_settings({"UNSUBD_WORKERS": "2"}, workers=3).workers == 3


# --- files


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("UNSUBD_SECRET_KEYS", f" {KEY} \n", lambda s: s.keys().masters == (bytes.fromhex(KEY),)),
        ("UNSUBD_ADMIN_TOKEN", "t0ken\n", lambda s: s.admin_token.get_secret_value() == "t0ken"),
        ("UNSUBD_IMAP_PASSWORD", "p ä\n", lambda s: s.imap_password.get_secret_value() == "p ä"),
        ("UNSUBD_REDIS_URL", "redis://:pw@r/0\n", lambda s: s.redis_url == "redis://:pw@r/0"),
        ("UNSUBD_IMAP_NEWS_PASSWORD", "pw\n", lambda s: s.imap_passwords["news"].get_secret_value() == "pw"),
        ("UNSUBD_IN_RELAY", "bearer:a bearer:b\n", lambda s: s.proofs("relay", "default") == ["bearer:a", "bearer:b"]),
        ("UNSUBD_IN_RELAY_EU", "bearer:a\n", lambda s: s.proofs("relay", "eu") == ["bearer:a"]),
        ("UNSUBD_ADMIN_TOKEN", "\n", lambda s: "admin_token" not in s.model_fields_set),
    ],
)
def test_any_setting_may_come_from_a_file(tmp_path: Path, name: str, content: str, read: Any) -> None:
    path = tmp_path / "file"
    path.write_text(content)

    assert read(load_settings({f"{name}_FILE": str(path)}))


@pytest.mark.parametrize(
    "name", ["UNSUBD_SECRET_KEYS", "UNSUBD_ADMIN_TOKEN", "UNSUBD_IMAP_NEWS_PASSWORD", "UNSUBD_IN_RELAY"]
)
def test_a_setting_and_its_file_are_not_both_set(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text(KEY)

    lines = refused({name: KEY, f"{name}_FILE": str(tmp_path / "file")})

    assert lines == [f"{name} and {name}_FILE: both are set, expected one of them: unset the other"]


def test_the_certificate_file_is_a_setting_of_its_own() -> None:
    assert load_settings({"UNSUBD_IMAP_CA_FILE": "/no/such.pem"}).imap_ca_file == Path("/no/such.pem")


def test_unreadable_files_are_named_with_their_reason(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")

    lines = refused(
        {
            "UNSUBD_SECRET_KEYS_FILE": str(tmp_path / "gone"),
            "UNSUBD_ADMIN_TOKEN_FILE": str(tmp_path),
            "UNSUBD_IN_RELAY_FILE": str(binary),
        }
    )

    assert lines == [
        f"UNSUBD_SECRET_KEYS_FILE: {tmp_path}/gone: No such file or directory, expected a file we may read",
        f"UNSUBD_ADMIN_TOKEN_FILE: {tmp_path}: Is a directory, expected a file we may read",
        f"UNSUBD_IN_RELAY_FILE: {binary}: not UTF-8, expected a text file",
    ]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("imaps://imap.example.com/INBOX", "no user before the host"), ("imaps://anna@/INBOX", "no host"),
        ("pop3://anna@example.com", "scheme 'pop3'"), ("imaps://anna@[::1/INBOX", "a [ or ] that belongs to no IPv6 address"),
    ],
)  # fmt: skip
def test_what_a_mailbox_url_lacks_is_named(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as told:
        MailboxAddress.parse(url)

    assert str(told.value) == f"UNSUBD_IMAP_URL: {problem}, expected e.g. imaps://user@host/INBOX#name"


# --- families


def test_each_mailbox_may_have_its_password() -> None:
    settings = load_settings({"UNSUBD_IMAP_PASSWORD": "all", "UNSUBD_IMAP_NEWS_EU_PASSWORD": "one"})

    assert settings.imap_password.get_secret_value() == "all"
    assert {name: value.get_secret_value() for name, value in settings.imap_passwords.items()} == {"news_eu": "one"}


def test_proofs_are_per_provider_and_name() -> None:
    settings = load_settings({"UNSUBD_IN_RELAY": "a", "UNSUBD_IN_RELAY_EU_WEST": "b c", "UNSUBD_IN_SENDGRID_EU": "d"})

    assert settings.proofs("relay", "default") == ["a"]
    assert settings.proofs("relay", "eu_west") == ["b", "c"]
    assert settings.proofs("sendgrid", "EU") == ["d"]
    assert settings.proofs("sendgrid", "default") is None
    assert settings.proofs("ses", "default") is None


def test_a_pem_block_is_one_proof_wherever_it_stands(tmp_path: Path) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMIIB\nIjAN+/==\n-----END PUBLIC KEY-----"
    (tmp_path / "key").write_text(f"{pem}\n basic:a:b\n{pem}\n")
    settings = load_settings(
        {"UNSUBD_IN_POSTAL_FILE": str(tmp_path / "key"), "UNSUBD_IN_POSTAL_EU": pem.replace("\n", " ")}
    )

    assert settings.proofs("postal", "default") == [pem, "basic:a:b", pem]
    assert settings.proofs("postal", "eu") == [pem.replace("\n", " ")]


def test_half_a_pem_block_takes_no_other_proof_with_it() -> None:
    settings = load_settings({"UNSUBD_IN_POSTAL": "-----BEGIN PUBLIC KEY----- MIIB basic:a:b"})

    assert "basic:a:b" in (settings.proofs("postal", "default") or [])


# --- problems

WRONG = {
    "UNSUBD_SECRET_KEYS": ("s3cret-and-not-hex", "key 1 of 18 characters: expected at least 32 hex digits"),
    "UNSUBD_ADDRESS": ("nonsense", "'nonsense', expected e.g. u+{tag}@unsub.example.com"),
    "UNSUBD_HTTP": ("localhost", "expected host:port, e.g. 127.0.0.1:8125"),
    "UNSUBD_PUBLIC_URL": ("unsub.example.com", "expected a URL, e.g. https://unsub.example.com"),
    "UNSUBD_REDIS_URL": (
        "mysql://u:s3cret@h",
        "expected redis://, rediss:// or unix://, e.g. redis://127.0.0.1:6379/0,"
        " or redis+sentinel://host:26379,host:26379/name/0",
    ),
    "UNSUBD_STORE_URL": (
        "redis://:s3/cret@h",
        "expected redis://, rediss:// or unix://, e.g. redis://127.0.0.1:6379/0,"
        " or redis+sentinel://host:26379,host:26379/name/0",
    ),
    "UNSUBD_IMAP_BACKLOG": ("yesterday", "expected ask, all, or a date such as 2026-11-21"),
    "UNSUBD_IMAP_UNTAGGED": ("s3cret", "Input should be 'leave' or 'process'"),
    "UNSUBD_POLL_INTERVAL_S": ("soon", "Input should be a valid integer, unable to parse string as an integer"),
    "UNSUBD_QUEUE_LIMIT": ("0", "Input should be greater than 0"),
    "UNSUBD_ALLOW_WEAK_DURABILITY": ("perhaps", "Input should be a valid boolean, unable to interpret input"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_line(name: str) -> None:
    value, message = WRONG[name]

    assert refused({name: value}) == [f"{name}: {message}"]


def test_all_problems_are_named_at_once_and_none_spells_a_secret(tmp_path: Path) -> None:
    environ = {name: value for name, (value, _) in WRONG.items()} | {"UNSUBD_ADMIN_TOKEN_FILE": str(tmp_path / "gone")}

    lines = refused(environ)

    assert sorted(line.partition(":")[0] for line in lines) == sorted(environ)
    assert "s3" not in "".join(lines)


@pytest.mark.parametrize("keys", ["zz" * 16, "ab" * 15, "abc" * 11, f"{KEY},{'g' * 40}", f"{KEY};{OTHER_KEY}"])
def test_keys_are_hex_of_16_bytes_or_more(keys: str) -> None:
    assert refused({"UNSUBD_SECRET_KEYS": keys})[0].endswith("expected at least 32 hex digits")


def test_keys_are_read_newest_first() -> None:
    keys = load_settings({"UNSUBD_SECRET_KEYS": f" {KEY.upper()} ,{OTHER_KEY},"}).keys()

    assert keys.masters == (bytes.fromhex(KEY), bytes.fromhex(OTHER_KEY))


@pytest.mark.parametrize(
    "url",
    ["redis://h:notaport", "redis://h/0?db=x", "http://h", "localhost:6379", "redis://[::1", "redis+sentinel://h"],
)
def test_a_redis_url_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    assert refused({"UNSUBD_REDIS_URL": url})[0].startswith("UNSUBD_REDIS_URL: expected redis://")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://u:p@h:6380/2",
        "unix:///run/valkey.sock",
        "redis://[::1]:6379/0",
        "redis+sentinel://a,b/m/0",
    ],
)
def test_redis_urls(url: str) -> None:
    assert load_settings({"UNSUBD_REDIS_URL": url}).redis_url == url


def test_the_public_url_loses_its_last_slash() -> None:
    assert load_settings({"UNSUBD_PUBLIC_URL": "https://u.example.com/x/"}).public_url == "https://u.example.com/x"


def test_a_missing_template_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"^UNSUBD_ADDRESS: not set, expected e\.g\."):
        load_settings({}).template()


# --- names


def test_misspelt_names_are_found() -> None:
    ours = ["REDIS_URI", "SECRET_KEY", "IMAP_PASSWORDS", "WEBHOOK_PROOFS", "IN_", "IMAP_news_PASSWORD"]

    environ = dict.fromkeys([*(f"UNSUBD_{name}" for name in ours), "PATH", "unsubd_http"], "x")

    assert unknown_names(environ) == sorted(f"UNSUBD_{name}" for name in ours)


def test_every_setting_its_file_and_the_families_are_known() -> None:
    plain = [setting_name(field) for field in Settings.model_fields if "<" not in setting_name(field)]
    families = ["UNSUBD_IMAP_NEWS_PASSWORD", "UNSUBD_IN_RELAY", "UNSUBD_IN_RELAY_EU_WEST"]

    assert unknown_names({name + end: "x" for name in plain + families for end in ("", "_FILE")}) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://u:s3cret@h/0", "redis://u:***@h/0"),
        ("redis://:s3@cr:e/t@h/0", "redis://:***@h/0"),
        ("redis://h/0?password=s3cret&db=1", "redis://h/0?password=***&db=1"),
        (
            "redis+sentinel://u:s3cret@h,i/m?sentinel_password=x%2F&a=1",
            "redis+sentinel://u:***@h,i/m?sentinel_password=***&a=1",
        ),
        ("imaps://u@h:993/INBOX#a imaps://v:s3cret@h/INBOX#b", "imaps://u@h:993/INBOX#a imaps://v:***@h/INBOX#b"),
        ("u+{tag}@unsub.example.com", "u+{tag}@unsub.example.com"),
    ],
)
def test_a_shown_value_holds_no_password(value: object, text: str) -> None:
    assert shown(value) == text


def test_no_secret_is_shown_whole() -> None:
    environ = {"UNSUBD_SECRET_KEYS": KEY, "UNSUBD_ADMIN_TOKEN": "s3cret", "UNSUBD_IMAP_PASSWORD": "s3cret"}
    environ |= {
        "UNSUBD_IMAP_X_PASSWORD": "s3cret",
        "UNSUBD_IN_RELAY": "s3cret",
        "UNSUBD_STORE_URL": "redis://:s3cret@h",
    }
    settings = load_settings(environ)

    said = " ".join(shown(getattr(settings, field)) for field in Settings.model_fields) + repr(settings)

    assert KEY not in said
    assert "s3cret" not in said.replace(repr(settings.store_url), "")


@pytest.mark.parametrize(("mode", "open_"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_secret_file_is_too_open_when_others_may_read_it(tmp_path: Path, mode: int, open_: bool) -> None:
    path = tmp_path / "secret"
    assert not too_open(path)
    path.touch()
    path.chmod(mode)

    assert too_open(path) is open_


# --- LMTP


@pytest.mark.parametrize(
    "address", ["unix:/run/unsubd/lmtp", "127.0.0.1:2424", "127.9.9.9:1", "[::1]:24", "localhost:24"]
)
def test_lmtp_is_a_unix_socket_or_a_port_on_loopback(address: str) -> None:
    assert load_settings({"UNSUBD_LMTP": address}).lmtp == address


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:24", "192.0.2.1:24", "[::]:24", "mail.example.com:24", "::1:24", "127.0.0.1:0", "127.0.0.1:65536", "24",
        "127.0.0.1", "127.0.0.1:x", "unix:relative", "unix:", "unix:/" + "x" * 107, "/run/lmtp", ":24", "*:24",
    ],
)  # fmt: skip
def test_lmtp_anywhere_else_is_refused(address: str) -> None:
    (problem,) = refused({"UNSUBD_LMTP": address})

    assert problem.startswith("UNSUBD_LMTP: expected unix:")


@pytest.mark.parametrize(
    ("mode", "owner", "group", "open_"),
    [
        (0o440, 0, 10001, False),  # as Kubernetes mounts a secret for us (fsGroup)
        (0o400, 0, 0, False),
        (0o460, 0, 10001, True),
        (0o444, 0, 10001, True),
        (0o440, 0, 5, True),
        (0o440, 7, 10001, True),
    ],
)
def test_root_may_show_a_secret_to_our_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, owner: int, group: int, open_: bool
) -> None:
    path = tmp_path / "secret"
    path.touch()
    facts = os.stat_result((mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _, **__: facts)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    monkeypatch.setattr(os, "getegid", lambda: 10001)

    found = too_open(path)
    monkeypatch.undo()

    assert found is open_
