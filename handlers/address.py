"""Email addresses: the canonical form that keys every suppression, and the repairs for damaged ones.

Canonical: NFC, local part lower-cased, domain as lower-case A-labels (UTS 46) without a trailing dot; a domain
literal is kept. Nothing else is folded: dots and "+" belong to whoever owns the mailbox.

RFC: 5321 2.4 (case) and 4.1.2 (mailbox), 5233 (subaddress), 6531 (UTF-8 addresses), 5890 (A-labels).
"""

import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

import idna

from handlers.errors import AddressError

MAX_ADDRESS_OCTETS = 320  # 64 + 1 + 255, RFC 5321 4.5.3.1; longer local parts exist, whole addresses this long do not
_UNDECODED = re.compile(r"[\udc80-\udcff]")  # PEP 383: an octet that is no UTF-8
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ASCII_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_CANONICAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@" + _ASCII_DOMAIN.pattern)
_SURELY_SHORT = 253  # a whole address that a domain may be as long as
_WRAPPING = re.compile(r"^[\s<\"'(]*(?:mailto\s*:)?[\s<\"'(]*", re.I)
_UNDAMAGED = re.compile(r"[A-Za-z0-9+=_.-]+@[A-Za-z0-9.-]+")  # nothing here that a repair would change
_CLOSING = "".join(filter(str.isspace, map(chr, range(0x3001)))) + ">\"')"  # "[…]*$" is quadratic in a run inside
_SPECIAL = re.compile(r'[\s"(),:;<>@\[\\\]]')  # RFC 5322 3.2.3: only within quotes
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"\[[0-9A-Za-z:.-]+\]")


def split(address: str) -> tuple[str, str]:
    """Split *address* at its last "@".

    Errors:  AddressError  either side is empty.    permanent
    Example:
        >>> split('"a@b"@example.com')
        ('"a@b"', 'example.com')
    """
    local_part, at, domain = address.rpartition("@")
    if not (at and local_part and domain):
        raise AddressError(f"address of {len(address)} characters: expected local-part@domain")
    return local_part, domain


def canonical(address: str) -> str:
    """Return the one spelling of *address* under which suppressions are stored and asked for.

    Errors:  AddressError  no address, control characters, over 320 octets, or an impossible domain.    permanent
    Repeat:  canonical(canonical(x)) == canonical(x).
    Example:
        >>> canonical(" Jane.Doe@BÜCHER.example. ")
        'jane.doe@xn--bcher-kva.example'
    """
    if _is_canonical(address):
        return address
    text = unicodedata.normalize("NFC", address.strip())
    if trouble := undecoded(text):
        raise AddressError(f"address of {len(address)} characters: {trouble}")
    if _UNPRINTABLE.search(text):
        raise AddressError(f"address of {len(address)} characters: control characters are not allowed")
    local_part, domain = split(text)
    folded = _folded(local_part) + "@" + _canonical_domain(domain)
    if len(folded.encode()) > MAX_ADDRESS_OCTETS:
        raise AddressError(f"address of {len(folded.encode())} octets: expected at most {MAX_ADDRESS_OCTETS}")
    return folded


def _is_canonical(address: str) -> bool:
    """Say of an address of ASCII that nothing is to be done to it, as of most that a check is asked for."""
    return len(address) <= _SURELY_SHORT and _CANONICAL.fullmatch(address) is not None


def undecoded(text: str) -> str:
    """Return which octet of *text* is no UTF-8 and what to do, "" when all are.

    Example:
        >>> undecoded(b"zo\\xe9@example.com".decode("utf-8", "surrogateescape"))
        'octet 0xE9 is no UTF-8, expected UTF-8: of a list in Latin-1, iconv -f LATIN1 -t UTF-8 LIST makes it'
    """
    octet = _UNDECODED.search(text)
    known = f"octet 0x{ord(octet[0]) - 0xDC00:02X} is no UTF-8" if octet else ""
    return known and f"{known}, expected UTF-8: of a list in Latin-1, iconv -f LATIN1 -t UTF-8 LIST makes it"


def one_address(text: str) -> str:
    """Return the canonical form of a text that is to be one bare address: a cell of a list, a question, an argument.

    Why:     `canonical` takes any local part, as mail shows them all; of "a@x.com,b@y.org" it would answer for nobody's
             address, and whoever asks before sending would hear "allowed".
    Errors:  AddressError  as `canonical`; two addresses, a name beside it, spaces.    permanent
    Example:
        >>> one_address("Jane@Example.com")
        'jane@example.com'
    """
    if _is_canonical(text):
        return text
    address = canonical(text)
    local_part = address.rpartition("@")[0]
    if _SPECIAL.search(local_part) and not _QUOTED.fullmatch(local_part):
        raise AddressError(f"address of {len(text)} characters: expected one bare address")
    return address


def _folded(local_part: str) -> str:
    # Lower-casing may decompose ("İ"), composing may yield a capital again: repeat until nothing moves.
    while (folded := unicodedata.normalize("NFC", local_part.lower())) != local_part:
        local_part = folded
    return local_part


@lru_cache(maxsize=65536)  # a list of a million addresses has few domains, and UTS 46 is most of the work
def _canonical_domain(domain: str) -> str:
    if _LITERAL.fullmatch(domain):
        return domain.lower()
    try:
        labels = idna.uts46_remap(domain, std3_rules=False).rstrip(".").split(".")
    except idna.IDNAError as error:
        raise AddressError(f"domain of {len(domain)} characters: not allowed by UTS 46") from error
    ascii_domain = ".".join(_a_label(label) for label in labels)
    if not _ASCII_DOMAIN.fullmatch(ascii_domain) or len(ascii_domain) > 253:
        raise AddressError(f"domain of {len(domain)} characters: expected labels of letters, digits and hyphens")
    return ascii_domain


def _a_label(label: str) -> str:
    if label.isascii():
        return label.lower()
    try:
        return idna.alabel(label).decode()
    except idna.IDNAError:
        # UTS 46 allows what IDNA 2008 forbids (emoji domains exist and receive mail).
        return "xn--" + label.encode("punycode").decode()


def masked(address: str) -> str:
    """Return *address* so that its owner recognises it and nobody else learns it.

    Example:
        >>> masked("jane@example.com"), masked("jo@example.com")
        ('j···e@example.com', 'j···@example.com')
    """
    local_part, _, domain = address.rpartition("@")
    return f"{local_part[:1]}···{local_part[-1:] if len(local_part) > 2 else ''}@{domain}"


def undamaged(text: str) -> list[tuple[str, str]]:
    """Return the spellings that *text* may have had before software damaged it, as (repair, text) pairs.

    The first is the text as it came, repair "". Kept only if a MAC verifies; so the list may be generous.
    Why:     reference: clients leave percent escapes in, read "+" as a space, keep "mailto:", quotes and the query.
    Example:
        >>> undamaged("<mailto:u%2Bx@d?subject=y>")[-1]
        ('unwrap+percent', 'u+x@d')
    """
    if _UNDAMAGED.fullmatch(text):
        return [("", text)]
    bare = _WRAPPING.sub("", text)
    bare = bare.partition("?")[0].rstrip(_CLOSING).replace('"@', "@").replace("'@", "@")
    steps = [("", text), ("unwrap", bare), ("unwrap+percent", unquote(bare, errors="replace"))]
    steps += [(name + "+space", value.replace(" ", "+")) for name, value in steps[1:]]
    seen: set[str] = set()
    return [(name, value) for name, value in steps if not (value in seen or seen.add(value))]  # type: ignore[func-returns-value]
