"""The file that a mailbox's OAuth login is kept in: JSON, mode 0600, of one of three types.

`service_account` is the file as Google gives it; `client_credentials` is an application of Microsoft 365 (or another);
`refresh_token` is a person's consent, as `unsubd mailbox login` stores it. Refresh tokens that the server replaces are
written back, so that folder must be ours.
"""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from handlers.errors import ConfigError
from worker.settings import too_open

GOOGLE_SCOPE = "https://mail.google.com/"
MICROSOFT_TOKEN_URL = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(url: str) -> bool:
    """Say whether *url* leads to this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def checked_url(value: Any) -> str:
    """Errors: ValueError  not https://, nor http:// to loopback."""
    parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value))):
        raise ValueError("expected an https:// URL")
    return str(value)


_Url = Annotated[str, BeforeValidator(checked_url)]
_Secret = Annotated[SecretStr, Field(min_length=1)]


class _Login(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, defer_build=True)


class ServiceAccount(_Login):
    """A Google service account that acts for the mailbox's user (domain-wide delegation)."""

    type: Literal["service_account"]
    client_email: str
    private_key: _Secret
    token_url: _Url = Field(alias="token_uri")
    scope: str = GOOGLE_SCOPE


class ClientCredentials(_Login):
    """An application that logs in as itself."""

    type: Literal["client_credentials"]
    token_url: _Url
    client_id: str
    client_secret: _Secret
    scope: str


class RefreshToken(_Login):
    """A person's consent."""

    type: Literal["refresh_token"]
    token_url: _Url
    client_id: str
    client_secret: _Secret | None = None
    refresh_token: _Secret
    scope: str = ""
    authorize_url: str = ""  # these two are for the next `unsubd mailbox login`
    device_url: str = ""


Login = ServiceAccount | ClientCredentials | RefreshToken
_LOGIN: TypeAdapter[Login] = TypeAdapter(
    Annotated[Login, Field(discriminator="type")], config=ConfigDict(defer_build=True)
)


def read(path: Path) -> Login:
    """Return the login that *path* describes.

    Errors:  ConfigError  unreadable, readable by others, or not of this form; one line, without any of its values.
    """
    try:
        return _LOGIN.validate_python(_with_token_url(json.loads(secret_text(path))))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None
    except json.JSONDecodeError:
        # Without its cause: json keeps the whole text, secrets too, in the error.
        raise ConfigError(f"{path}: no JSON, expected an OAuth login file") from None


def secret_text(path: Path) -> str:
    """Return what a secret file holds. Errors: ConfigError  unreadable, or others may read it."""
    try:
        open_to_others, text = too_open(path), path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}, expected a file that we may read") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8, expected a text file") from None
    if open_to_others:
        raise ConfigError(f"{path}: others may read it, expected mode 0600: chmod 600 {path}")
    return text


def _with_token_url(content: Any) -> Any:
    """Microsoft's token_url is known by the tenant."""
    if isinstance(content, dict) and "token_url" not in content and (tenant := content.get("tenant")):
        return content | {"token_url": MICROSOFT_TOKEN_URL.format(tenant=tenant)}
    return content


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    name = str(problem["loc"][-1]) if problem["loc"] else "type"
    if problem["type"].startswith("union_tag"):
        return "type: expected service_account, client_credentials or refresh_token"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"


def rotate(path: Path, refresh_token: str) -> None:
    """Replace the refresh token in *path*; everything else in it stays.

    Errors:  ConfigError  the file cannot be written.
    """
    write(path, json.loads(path.read_bytes()) | {"refresh_token": refresh_token})


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write *content* to *path*: 0600 from its first moment, and whole or not at all.

    Errors:  ConfigError  the folder cannot be written.
    """
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        _sync(target.parent)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror}, expected a folder that we may write: move it to one") from error
