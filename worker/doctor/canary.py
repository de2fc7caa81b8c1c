"""`unsubd doctor --canary`: one tagged message through every way in, and when it reached each hop."""

import os
import secrets
import smtplib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2

from handlers import canary
from handlers import tag as tags
from handlers.errors import ConfigError, Unavailable
from handlers.providers.samples import SAMPLES
from worker import hook_test
from worker.canary import ACCEPTED, RECORDED, seen
from worker.doctor.finding import Finding, fail, ok
from worker.hooks import Hook
from worker.installation import Installation
from worker.settings import Settings, unix_path
from worker.unreached import unreached

_LAYER = "canary"
_TIMEOUT_S = 15.0
_LOOK_EVERY_S = 0.1
Send = Callable[[str], None]
Watch = Callable[[str], AbstractContextManager[Callable[[float], None]]]


class _Unreached(Unavailable):
    """An endpoint of ours that cannot be posted to."""


def _unwatched(_: str) -> AbstractContextManager[Callable[[float], None]]:
    return nullcontext(lambda _: None)


@dataclass(frozen=True, slots=True)
class _Flight:
    way: str
    nonce: str
    sent_ms: int
    trouble: str = ""
    remedy: str = ""


def fly(
    installation: Installation, limit_s: float, ask: Callable[[str], None], watch: Watch = _unwatched
) -> Iterator[Finding]:
    """Send a canary by every way in, and yield what became of each. Suppresses nobody.

    Shape:   ask: told the address of a mail that a person has to send, where UNSUBD_CANARY_SMTP_URL is not set.
             watch: opened for each way in that is waited for, and told the seconds waited so far.
    Errors:  ConfigError  UNSUBD_ADDRESS is not set, or UNSUBD_CANARY_SMTP_URL is no such URL.
             Unavailable  Redis is away.    temporary
    """
    ways = _ways(installation, ask)
    flights = [_started(installation, way, send) for way, send in ways]
    if not flights:
        yield fail(_LAYER, "no way in is configured", "UNSUBD_IMAP_URL, UNSUBD_LMTP, or unsubd hook add")
    deadline = time.monotonic() + limit_s
    for flight in flights:
        with watch(flight.way) as waited:
            finding = _landed(installation, flight, deadline, limit_s, waited)
        yield finding


def _ways(installation: Installation, ask: Callable[[str], None]) -> list[tuple[str, Send]]:
    settings = installation.settings
    folder = settings.maildir or settings.drop_folder
    hooks = installation.hooks.every()
    found: list[tuple[str, Send]] = [("maildir", partial(_drop, folder))] if folder else []
    found += [("lmtp", partial(_hand_over, settings.lmtp))] if settings.lmtp else []
    found += [(each.path, partial(_post, installation, each)) for each in hooks if each.proofs]
    if settings.canary_smtp_url:
        found.append(("mail", partial(_mail, settings)))
    elif settings.imap_url.strip():
        found.append(("mail", ask))
    return found


def _started(installation: Installation, way: str, send: Send) -> _Flight:
    nonce, sent_ms = secrets.token_hex(4), time.time_ns() // 1_000_000
    whom = canary.canary(nonce)
    minted = tags.mint(installation.keys, whom, installation.settings.template())
    if minted.stored:
        installation.tags.keep([(minted, whom)])
    try:
        send(minted.address)
    except _Unreached as error:
        return _Flight(way, nonce, sent_ms, f"cannot be sent: {error.told}", error.remedy)
    except (OSError, smtplib.SMTPException) as error:
        remedy = "start unsubd run: nobody takes it there; see the lines above"
        return _Flight(way, nonce, sent_ms, f"cannot be sent ({type(error).__name__})", remedy)
    return _Flight(way, nonce, sent_ms)


def _landed(
    installation: Installation, flight: _Flight, deadline: float, limit_s: float, waited: Callable[[float], None]
) -> Finding:
    if flight.trouble:
        return fail(_LAYER, f"{flight.way}: {flight.trouble}", flight.remedy)
    while RECORDED not in (hops := seen(installation.redis, flight.nonce)) and time.monotonic() < deadline:
        waited(limit_s - max(0.0, deadline - time.monotonic()))
        time.sleep(_LOOK_EVERY_S)
    spent = {name: (int(hops[name]) - flight.sent_ms) / 1000 for name in (ACCEPTED, RECORDED) if name in hops}
    if RECORDED in spent:
        times = f"accepted after {spent[ACCEPTED]:.1f} s, recorded after {spent[RECORDED]:.1f} s"
        return ok(_LAYER, f"{flight.way}: came by {hops['source']}, {times}")
    if ACCEPTED in spent:
        told = f"{flight.way}: accepted after {spent[ACCEPTED]:.1f} s, and not recorded within {limit_s:g} s"
        return fail(_LAYER, told, "start unsubd run, or unsubd work: it waits in the queue")
    return fail(
        _LAYER, f"{flight.way}: not here within {limit_s:g} s", "see source, mailbox and mx above; is it in Junk?"
    )


def _letter(address: str) -> bytes:
    return SAMPLES["relay"](address)[1].partition(b"\r\n")[2]


def _drop(folder: Path, address: str) -> None:
    name = f"{time.time_ns()}.canary"
    (folder / "tmp" / name).write_bytes(_letter(address))
    os.rename(folder / "tmp" / name, folder / "new" / name)


def _hand_over(lmtp: str, address: str) -> None:
    path = unix_path(lmtp)
    host, _, port = lmtp.rpartition(":")
    where = (str(path), 0) if path else (host.strip("[]"), int(port))
    with smtplib.LMTP(*where) as link:
        link.sendmail("canary@canary.invalid", [address], _letter(address))


def _post(installation: Installation, hook: Hook, address: str) -> None:
    content_type, body = SAMPLES[hook.provider](address)
    base = installation.settings.public_url or f"http://{installation.settings.http}"
    try:
        hook_test.post(installation, base + hook.path, content_type, body).raise_for_status()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        command = f"unsubd hook test {hook.provider} {hook.name} --url {hook_test.here(installation.settings, hook)}"
        raise _Unreached(*unreached(base, error, command)) from error


def _mail(settings: Settings, address: str) -> None:
    url = urlsplit(settings.canary_smtp_url.get_secret_value() if settings.canary_smtp_url else "")
    if url.scheme not in ("smtp", "smtps") or not url.hostname:
        raise ConfigError("UNSUBD_CANARY_SMTP_URL: expected smtps://user:password@host:465, or smtp://host:587")
    kind = smtplib.SMTP_SSL if url.scheme == "smtps" else smtplib.SMTP
    with kind(url.hostname, url.port or (465 if url.scheme == "smtps" else 587), timeout=_TIMEOUT_S) as link:
        if url.scheme == "smtp" and link.has_extn("starttls"):
            link.starttls()
        if url.username:
            link.login(unquote(url.username), unquote(url.password or ""))
        user = unquote(url.username or "")
        # Whose mail it is: a domain that exists and takes mail. Postfix refuses a bare IP address there, Exim one in brackets.
        author = user if "@" in user else f"canary@{settings.template().domain}"
        link.sendmail(author, [address], _letter(address))
