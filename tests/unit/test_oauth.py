"""OAuth logins, the parts without a server: which login is used, what its file must be, where consent is asked for."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from handlers.errors import ConfigError
from worker.settings import Settings, load_settings, setting_name, unknown_names
from worker.sources import oauth
from worker.sources.credential import Credential
from worker.sources.imap import MailboxAddress, MailboxRefused
from worker.sources.oauth import choice, endpoint, file
from worker.sources.oauth.endpoint import Token, shown
from worker.sources.oauth.provider import provider_of

NEWS = MailboxAddress.parse("imaps://u@mail.example.com/INBOX#news")
REFRESH = {
    "type": "refresh_token", "token_url": "https://auth.example.com/token", "client_id": "app",
    "refresh_token": "refresh-S3cret",
}  # fmt: skip
CLIENT = {
    "type": "client_credentials", "token_url": "https://auth.example.com/token", "client_id": "app",
    "client_secret": "client-S3cret", "scope": "imap",
}  # fmt: skip
ACCOUNT = {
    "type": "service_account", "client_email": "r@example.com", "private_key": "key-S3cret",
    "token_uri": "https://oauth2.googleapis.com/token", "universe_domain": "googleapis.com",
}  # fmt: skip


def _file(folder: Path, content: Any, name: str = "login.json") -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _settings(**environ: str) -> Settings:
    return load_settings({f"UNSUBD_{name}": value for name, value in environ.items()})


# --- settings


def test_each_mailbox_may_have_its_oauth_file() -> None:
    settings = _settings(IMAP_OAUTH="/all.json", IMAP_NEWS_EU_OAUTH="/one.json")

    assert settings.imap_oauth == Path("/all.json")
    assert settings.imap_oauths == {"news_eu": Path("/one.json")}
    assert setting_name("imap_oauths") == "UNSUBD_IMAP_<NAME>_OAUTH"


def test_a_relative_oauth_file_is_meant_from_here() -> None:
    settings = _settings(IMAP_OAUTH="a.json", IMAP_NEWS_OAUTH="b.json")

    assert settings.imap_oauth == Path.cwd() / "a.json"
    assert settings.imap_oauths == {"news": Path.cwd() / "b.json"}


def test_the_oauth_family_is_known_and_its_misspellings_are_not() -> None:
    known = ["UNSUBD_IMAP_OAUTH", "UNSUBD_IMAP_NEWS_OAUTH", "UNSUBD_IMAP_NEWS_OAUTH_FILE"]
    wrong = ["UNSUBD_IMAP_OAUTHS", "UNSUBD_IMAP_news_OAUTH", "UNSUBD_OAUTH"]

    assert unknown_names(dict.fromkeys([*known, *wrong], "x")) == sorted(wrong)


# --- which login

OWN_PASSWORD, OWN_FILE = {"IMAP_NEWS_PASSWORD": "own"}, {"IMAP_NEWS_OAUTH": "/own.json"}
PASSWORD, FILE = {"IMAP_PASSWORD": "all"}, {"IMAP_OAUTH": "/all.json"}


@pytest.mark.parametrize(
    ("environ", "password", "path"),
    [
        (OWN_PASSWORD | OWN_FILE | PASSWORD | FILE, "own", "own.json"),
        (OWN_FILE | PASSWORD | FILE, "", "own.json"),
        (PASSWORD | FILE, "all", "all.json"),
        (FILE, "", "all.json"),
        ({"IMAP_OTHER_PASSWORD": "x", "IMAP_OTHER_OAUTH": "/x.json"}, "", "mailbox-news.oauth.json"),
    ],
)
def test_the_nearest_login_is_used(tmp_path: Path, environ: dict[str, str], password: str, path: str) -> None:
    _file(tmp_path, REFRESH, "mailbox-news.oauth.json")
    settings = _settings(DATA_DIR=str(tmp_path), **environ)

    found = choice.oauth_file(settings, NEWS)

    assert choice.password(settings, NEWS) == password
    assert found is not None
    assert found.name == path


def test_a_password_needs_no_file(tmp_path: Path) -> None:
    settings = _settings(IMAP_PASSWORD="p", IMAP_OAUTH=str(tmp_path / "gone"))

    assert asyncio.run(oauth.credential(settings, NEWS)) == Credential("password", "p")


def test_without_any_login_the_setting_is_named(tmp_path: Path) -> None:
    settings = _settings(DATA_DIR=str(tmp_path))

    with pytest.raises(
        MailboxRefused, match=r"^UNSUBD_IMAP_PASSWORD: not set, expected the password of mailbox 'news'"
    ):
        asyncio.run(oauth.credential(settings, NEWS))


@pytest.mark.parametrize(
    ("content", "said"),
    [(REFRESH, "oauth refresh_token"), (CLIENT, "oauth client_credentials"), (ACCOUNT, "oauth service_account")],
)
def test_a_login_is_described_without_its_secret(tmp_path: Path, content: Any, said: str) -> None:
    assert choice.described(_settings(IMAP_OAUTH=str(_file(tmp_path, content))), NEWS) == said


# --- the file


def test_the_tenant_stands_for_microsofts_token_url(tmp_path: Path) -> None:
    content = {name: value for name, value in CLIENT.items() if name != "token_url"} | {"tenant": "example.com"}

    assert file.read(_file(tmp_path, content)).token_url == (
        "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"
    )


def test_googles_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    login = file.read(_file(tmp_path, ACCOUNT))

    assert (login.token_url, login.scope) == ("https://oauth2.googleapis.com/token", "https://mail.google.com/")
    assert "S3cret" not in repr(login)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("S3cret {", "no JSON, expected an OAuth login file"),
        ("", "no JSON"),
        ("[]", "type: Input should be a valid dictionary"),
        ({}, "type: expected service_account, client_credentials or refresh_token"),
        ({"type": "password"}, "type: expected service_account"),
        (CLIENT | {"client_secret": ""}, "client_secret: "),
        (CLIENT | {"client_secret": ["S3cret"]}, "client_secret: "),
        ({"type": "refresh_token", "client_id": "a", "refresh_token": "S3cret"}, "token_url: Field required"),
        (REFRESH | {"token_url": "http://auth.example.com/token"}, "token_url: expected an https:// URL"),
        (REFRESH | {"token_url": "file:///S3cret"}, "token_url: expected an https:// URL"),
        (REFRESH | {"token_url": 7}, "token_url: expected an https:// URL"),
        (ACCOUNT | {"token_uri": "ftp://x/S3cret"}, "token_uri: expected an https:// URL"),
    ],
)
def test_a_wrong_file_is_one_line_without_its_values(tmp_path: Path, content: Any, said: str) -> None:
    path = _file(tmp_path, content)

    with pytest.raises(ConfigError) as caught:
        file.read(path)

    assert str(caught.value).startswith(f"{path}: {said}")
    assert "S3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, REFRESH)
    path.chmod(mode)

    with pytest.raises(MailboxRefused) as caught:
        asyncio.run(oauth.credential(_settings(IMAP_OAUTH=str(path)), NEWS))

    assert str(caught.value) == (f"mailbox 'news': {path}: others may read it, expected mode 0600: chmod 600 {path}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MailboxRefused, match="gone: No such file or directory, expected a file that we may read"):
        asyncio.run(oauth.credential(_settings(IMAP_OAUTH=str(tmp_path / "gone")), NEWS))


def test_writing_is_0600_whatever_the_umask_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "login.json"

    file.write(path, REFRESH)
    file.rotate(path, "next")

    assert json.loads(path.read_text()) == REFRESH | {"refresh_token": "next"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="expected a folder that we may write"):
        file.write(tmp_path / "file" / "login.json", REFRESH)


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    target = _file(tmp_path, REFRESH, "target.json")
    link = tmp_path / "link.json"
    link.symlink_to(target)

    file.rotate(link, "next")

    assert link.is_symlink()
    assert json.loads(target.read_text())["refresh_token"] == "next"


# --- providers and words


@pytest.mark.parametrize(
    "url", ["https://a.example.com/t", "http://127.0.0.1:1/t", "http://localhost/t", "http://[::1]/t"]
)
def test_urls_that_secrets_may_go_to(url: str) -> None:
    assert file.checked_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.example.com/", "http://localhost@evil.example/", "https://", "/token", None]
)
def test_urls_that_secrets_may_not_go_to(url: Any) -> None:
    with pytest.raises(ValueError, match="expected an https:// URL"):
        file.checked_url(url)


def test_microsoft_and_google_are_known() -> None:
    microsoft = provider_of(MailboxAddress.parse("imaps://u@outlook.office365.com/"), "example.com")
    google = provider_of(MailboxAddress.parse("imaps://u@imap.gmail.com/"), "")

    assert microsoft.device_url == "https://login.microsoftonline.com/example.com/oauth2/v2.0/devicecode"
    assert "offline_access" in microsoft.scope
    assert google.extra["access_type"] == "offline"
    with pytest.raises(ConfigError, match=r"^--device-url: not known"):
        google.needed("device-url")


def test_flags_override_and_are_checked() -> None:
    given = provider_of(NEWS, "", token_url="https://a.example.com/t", authorize_url="http://a.example.com/a")

    assert given.needed("token-url") == "https://a.example.com/t"
    with pytest.raises(ConfigError, match=r"^--authorize-url: expected an https:// URL"):
        given.needed("authorize-url")


def test_the_servers_words_are_cut_and_cleaned() -> None:
    assert shown("\r\nfirst \x1b[31mred\r\nsecond", ()) == "first [31mred"
    assert shown("x" * 500, ()) == "x" * 200
    assert shown("assertion eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJtZSJ9.c2ln is wrong", ()) == "assertion *** is wrong"


def test_a_token_shows_in_no_repr() -> None:
    assert "S3cret" not in repr(Token("S3cret", "S3cret", 1.0)) + repr(Credential("token", "S3cret"))


@pytest.mark.parametrize(("said", "ends"), [({"refresh_token_expires_in": 604_799}, True), ({}, False)])
def test_the_end_of_a_consent_is_known_when_the_server_says_it(said: dict[str, int], ends: bool) -> None:
    token = endpoint._token("https://oauth.example", {"access_token": "a", "expires_in": 3600, **said})

    address = MailboxAddress.parse("imaps://news@imap.example.com/INBOX")
    with patch.dict(oauth._tokens, {(address, Path("file")): token}):
        assert bool(oauth.login_ends_ms(address)) is ends
    assert ends is (token.login_ends_at > time.time() + 600_000)
