"""Where mail for the unsubscribe address goes: the MX of its domain, against the ways in that are configured."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from worker.doctor.finding import Finding, fail, ok, warn
from worker.settings import Settings

if TYPE_CHECKING:
    from dns.resolver import Resolver as Resolving

Resolver = Callable[[str], Sequence[str]]
_LIFETIME_S = 8.0
_RESERVED = ("example.com", "example.net", "example.org", "example", "test", "invalid", "localhost")  # RFC 2606, 6761
_PROVIDERS = {
    "mailgun.org": "mailgun", "sendgrid.net": "sendgrid", "postmarkapp.com": "postmark", "amazonaws.com": "ses",
    "cloudmailin.net": "cloudmailin", "mandrillapp.com": "mandrill", "sparkpostmail.com": "sparkpost",
    "mailjet.com": "mailjet", "forwardemail.net": "forwardemail", "mailersend.net": "mailersend",
    "sendinblue.com": "brevo", "brevo.com": "brevo",
}  # fmt: skip
_HOSTS = ("google.com", "googlemail.com", "outlook.com", "zoho.com", "zoho.eu", "icloud.com", "messagingengine.com",
          "protonmail.ch", "yandex.net", "mail.ru", "gmx.net")  # fmt: skip


class NoSuchDomain(Exception):
    """The domain does not exist, or takes no mail."""


class NoAnswer(Exception):
    """DNS could not be asked: nobody answered in time, refused, or knows no names at all."""


def resolve(domain: str, asker: "Resolving | None" = None) -> Sequence[str]:
    """Return the hosts that take mail for *domain*, the preferred first; itself where it has an address alone.

    Shape:   asker: whom to ask; None: whom this machine asks.
    Errors:  NoSuchDomain  no such domain, or no mail for it.
             NoAnswer      no name server could be asked.
    """
    from dns import exception, resolver

    try:
        asker = asker or resolver.Resolver()
    except exception.DNSException as error:  # no name server is configured
        raise NoAnswer(type(error).__name__) from error
    asker.lifetime = _LIFETIME_S
    try:
        return _hosts(asker, domain)
    except resolver.NXDOMAIN as error:
        raise _gone(asker) from error
    except (exception.DNSException, OSError) as error:
        raise NoAnswer(type(error).__name__) from error


def _hosts(asker: "Resolving", domain: str) -> list[str]:
    from dns import resolver

    try:
        rows = sorted(asker.resolve(domain, "MX"), key=lambda row: row.preference)
        return [str(row.exchange).rstrip(".").lower() for row in rows]
    except resolver.NoAnswer:
        pass
    for kind in ("A", "AAAA"):
        try:
            asker.resolve(domain, kind)
        except resolver.NoAnswer:
            continue
        return [domain]  # RFC 5321 5.1: the implicit MX
    raise NoSuchDomain


def _gone(asker: "Resolving") -> Exception:
    """What "no such domain" means: a resolver that denies the root as well (a sandbox's) knows nothing of any domain."""
    from dns import exception

    try:
        asker.resolve(".", "NS")
    except (exception.DNSException, OSError):
        return NoAnswer("it knows no domain at all")
    return NoSuchDomain()


def look(settings: Settings, resolver: Resolver) -> Iterator[Finding]:
    """Say whether mail for the address can come to a source of ours."""
    if settings.address is None:
        yield warn("mx", "not looked at: UNSUBD_ADDRESS is not set")
        return
    domain = settings.template().domain
    if any(domain == each or domain.endswith(f".{each}") for each in _RESERVED):
        yield warn(
            "mx", f"{domain} is reserved for examples: no mail comes to it", "a domain of yours in UNSUBD_ADDRESS"
        )
        return
    try:
        hosts = [host for host in resolver(domain) if host]
    except NoAnswer as error:
        yield warn(
            "mx", f"{domain}: DNS could not be asked ({error})", "look again, or ask elsewhere: dig MX " + domain
        )
        return
    except NoSuchDomain:
        hosts = []
    yield judged(domain, hosts, settings)


def judged(domain: str, hosts: Sequence[str], settings: Settings) -> Finding:
    """Return the finding for a domain whose mail goes to *hosts*; none: RFC 7505, or no such domain."""
    if not hosts:
        return fail("mx", f"{domain} takes no mail", "add an MX record for it")
    told = f"mail for {domain} goes to {hosts[0]}"
    ways = _ways(settings)
    if provider := next((name for end, name in _PROVIDERS.items() if _ends(hosts[0], end)), ""):
        if provider in ways:
            return ok("mx", f"{told}, and {provider}'s webhook is configured")
        return warn("mx", f"{told}, and no webhook of {provider} is in the settings", f"unsubd hook add {provider}")
    if any(_ends(hosts[0], end) for end in _HOSTS) and not ways & {"mailbox", "relay"}:
        return fail("mx", f"{told}, and no mailbox is configured", "UNSUBD_IMAP_URL=imaps://user@host/INBOX")
    if ways & {"mailbox", "lmtp", "maildir", "relay"}:
        return ok("mx", f"{told}, to be taken by {', '.join(sorted(ways))}")
    if ways:
        return warn(
            "mx", f"{told}, which is none of {', '.join(sorted(ways))}", "compare the MX with the provider's page"
        )
    return fail("mx", f"{told}, and no way in is configured", "UNSUBD_IMAP_URL, UNSUBD_LMTP, or unsubd hook add")


def _ends(host: str, end: str) -> bool:
    return host == end or host.endswith(f".{end}")


def _ways(settings: Settings) -> set[str]:
    named = {
        "mailbox": settings.imap_url.strip(),
        "lmtp": settings.lmtp,
        "maildir": settings.maildir or settings.drop_folder,
        "ses": settings.ses_queue_url,
    }
    return {name for name, value in named.items() if value} | {key.split(":")[0] for key in settings.webhook_proofs}
