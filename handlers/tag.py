"""The address tag: who asked to be left alone, by whom and for what, signed, inside one local part.

    u+am33sltomflsov-acme-12-jane.doe_example.com@unsub.example.com
      |+---- MAC ---+ |    |  +- recipient: its last "_" stands for "@"
      |               |    +- group (decimal, 0 = everything this sender sends)
      +- form         +- sender id

Form `a` is readable, `b` carries the recipient in base32, `h` is the first 26 characters of the MAC and stands for a
stored row. A tag uses only [a-z0-9._-], because case, "+", "=" and quotes do not survive all mail software. It never
expires: people unsubscribe from year-old mail. Reading is tolerant, but nothing counts unless the MAC verifies.

RFC: 5321 4.5.3.1.1 (64 octets), 2.4 (case); 5233 (subaddress); 4648 (base32, lower case here, no padding).
"""

import base64
import binascii
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

from handlers.address import canonical, split, undamaged
from handlers.errors import AddressError, ConfigError, TagForged, TagMalformed

MAX_LOCAL_OCTETS = 64
MAX_GROUP = 4294967295
SENDER_ID = re.compile(r"[a-z0-9]{1,16}")
_MAC_SHORT, _MAC_LONG = 13, 26
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
# The MAC's 26 characters, two at a time, from the top of its 256 bits: base64.b32encode takes twice as long.
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_PLACES = range(256 - 10, 256 - 5 * _MAC_LONG - 1, -10)
_MAX_READ = 1000  # receivers accept local parts over 64 octets; nobody's is this long
_SIGNED = re.compile(r"([ab])([a-z2-7]{13})-([a-z0-9]{1,16})-(0|[1-9][0-9]{0,9})-([^\s@]+)")
_STORED = re.compile(r"h([a-z2-7]{26})")
_STARTS = re.compile(r"(?:(?<=^)|(?<=[^a-z0-9]))[abh]")
_READABLE_LOCAL = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_LDH = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


FORGOTTEN = "~"  # how the name of somebody begins whose address was forgotten; an address may begin so too


def is_forgotten(recipient: str) -> bool:
    """Say whether *recipient* is no address but the name of somebody whose address was forgotten.

    Example:
        >>> is_forgotten("~q83vASNFZ4mrze8B"), is_forgotten("~jo@example.com")
        (True, False)
    """
    return recipient.startswith(FORGOTTEN) and "@" not in recipient


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tag says: the sender's id, the group (0 = global) and the canonical recipient.

    Shape:   recipient: of a stored tag perhaps a forgotten one.
    """

    sender: str
    group: int
    recipient: str


@dataclass(frozen=True, slots=True)
class StoredTag:
    """A form-h tag: *ref* is the 26 characters under which its row is stored."""

    ref: str


_NO_ROWS: Mapping[StoredTag, Tag] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Minted:
    """A tag, the whole address that carries it, and whether a row must be stored before the address is used."""

    tag: str
    address: str
    stored: bool
    ref: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A tag that verified: how it was damaged ("" = not at all) and which key of its sender signed it (0 = newest)."""

    tag: Tag
    repair: str
    key_index: int


class Keyring:
    """The master keys, newest first, and the sender keys derived from them.

    Shape:   masters: at least 16 bytes each. A sender key is HMAC-SHA256(master, "unsubd-sender-key-1" NUL sender).
    """

    def __init__(self, masters: tuple[bytes, ...]) -> None:
        for number, master in enumerate(masters, 1):
            if len(master) < 16:
                raise ConfigError(f"UNSUBD_SECRET_KEYS: key {number} has {len(master)} bytes, expected at least 16")
        self.masters = masters
        self._derived: dict[str, tuple[bytes, ...]] = {}

    def sender_keys(self, sender: str) -> tuple[bytes, ...]:
        """Return the keys of *sender*, newest first."""
        if sender not in self._derived:
            if len(self._derived) > 4096:  # a flood of forged senders must not grow the process
                self._derived.clear()
            message = b"unsubd-sender-key-1\0" + sender.encode()
            self._derived[sender] = tuple(hmac.digest(master, message, sha256) for master in self.masters)
        return self._derived[sender]

    def fingerprints(self) -> tuple[str, ...]:
        """Return 16 hex digits per master, in order: they name a key without telling it."""
        return tuple(fingerprint(master) for master in self.masters)


def fingerprint(master: bytes) -> str:
    """Return the first 16 hex digits of HMAC-SHA256(master, "unsubd-fingerprint-1")."""
    return hmac.digest(master, b"unsubd-fingerprint-1", sha256).hex()[:16]


@dataclass(frozen=True, slots=True)
class AddressTemplate:
    """Where tags live: `u+{tag}@unsub.example.com`, or `{tag}@…` on a catch-all domain."""

    prefix: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> "AddressTemplate":
        """Return the template that *text* spells.

        Errors:  ConfigError  not `prefix{tag}@domain`, a prefix that leaves no room for a stored tag, or one that runs
                 into the tag (reading finds a tag by the separator before its form letter).
        """
        prefix, marker, domain = text.strip().partition("{tag}@")
        if not marker or not re.fullmatch(r"[A-Za-z0-9._+=-]*", prefix) or not _LDH.fullmatch(domain.lower()):
            raise ConfigError(f"UNSUBD_ADDRESS: {text[:60]!r}, expected e.g. u+{{tag}}@unsub.example.com")
        if prefix[-1:].isalnum():
            raise ConfigError(f"UNSUBD_ADDRESS: {text[:60]!r}, expected one of . _ + = - between prefix and {{tag}}")
        if len(prefix) > MAX_LOCAL_OCTETS - 1 - _MAC_LONG:
            raise ConfigError(f"UNSUBD_ADDRESS: the prefix has {len(prefix)} characters, expected at most 37")
        return cls(prefix, domain.lower())

    def address(self, tag: str) -> str:
        """Return the address that carries *tag*."""
        return f"{self.prefix}{tag}@{self.domain}"

    def readable_budget(self, sender: str, group: int) -> int:
        """Return the length up to which a plain address stays readable for this sender and group."""
        return MAX_LOCAL_OCTETS - len(self.prefix) - len(f"a{'x' * _MAC_SHORT}-{sender}-{group}-")

    def holds(self, address: str) -> bool:
        """Say whether *address* is of this template's shape, whatever its tag is worth."""
        local_part, _, domain = address.lower().rpartition("@")
        inside = local_part.startswith(self.prefix.lower()) and domain.rstrip(".>") == self.domain
        return inside and bool(self.prefix or _shaped(local_part))


def mint(keys: Keyring, tag: Tag, template: AddressTemplate, *, opaque: bool = False) -> Minted:
    """Sign *tag* and return the address to put into `List-Unsubscribe`.

    Shape:   tag.recipient may have any spelling; what is signed is its canonical form.
    Errors:  AddressError  no address.    permanent
             TagMalformed  sender or group out of range.    permanent
             ConfigError   no key.
    Repeat:  the same input gives the same tag. `stored` means: useless until its row is durable.
    """
    if not keys.masters:
        raise ConfigError("UNSUBD_SECRET_KEYS: no key, expected hex digits (or set UNSUBD_SECRET_KEYS_FILE)")
    if not SENDER_ID.fullmatch(tag.sender):
        raise TagMalformed(f"sender {tag.sender[:20]!r}: expected 1 to 16 characters of a-z and 0-9")
    if not 0 <= tag.group <= MAX_GROUP:
        raise TagMalformed(f"group {tag.group}: expected 0 to {MAX_GROUP}")
    exact = Tag(tag.sender, tag.group, canonical(tag.recipient))
    mac = _mac(keys.sender_keys(tag.sender)[0], exact)
    text = _signed_text(exact, mac)
    stored = opaque or len(template.prefix) + len(text) > MAX_LOCAL_OCTETS
    if stored:
        text = "h" + mac[:_MAC_LONG]
    return Minted(text, template.address(text), stored, mac[:_MAC_LONG])


def _signed_text(tag: Tag, mac: str) -> str:
    local_part, domain = split(tag.recipient)
    head = f"{mac[:_MAC_SHORT]}-{tag.sender}-{tag.group}-"
    if _READABLE_LOCAL.fullmatch(local_part) and _LDH.fullmatch(domain):
        return f"a{head}{local_part}_{domain}"
    return f"b{head}{_base32(tag.recipient.encode())}"


def _base32(octets: bytes) -> str:
    return base64.b32encode(octets).decode().rstrip("=").lower()


def _mac(sender_key: bytes, tag: Tag) -> str:
    message = b"\0".join([b"unsubd-tag-1", tag.sender.encode(), str(tag.group).encode(), tag.recipient.encode()])
    number = int.from_bytes(hmac.digest(sender_key, message, sha256))
    return "".join([_PAIRS[number >> bits & 1023] for bits in _PLACES])


def _shaped(local_part: str) -> bool:
    return any(_SIGNED.fullmatch(text) or _STORED.fullmatch(text) for text in _tails(local_part))


def _tails(local_part: str) -> Iterator[str]:
    """Yield what may be the tag: from each place where a form letter follows a separator, to the end."""
    text = local_part.lower().rstrip("=")[:_MAX_READ]
    for start in _STARTS.finditer(text):
        yield text[start.start() :]


def is_shaped(address: str) -> bool:
    """Say whether some spelling of *address* has a tag's shape: if it does not verify, it is a bad tag, not none."""
    return any(_shaped(text.rpartition("@")[0] or text) for _, text in undamaged(address[:_MAX_READ]))


def stored_refs(address: str) -> list[StoredTag]:
    """Return the form-h tags that *address* may carry: their rows must be fetched before `read` can believe them."""
    refs = (
        StoredTag(match[1])
        for _, text in undamaged(address[:_MAX_READ])
        for tail in _tails(text.rpartition("@")[0] or text)
        if (match := _STORED.fullmatch(tail))
    )
    return list(dict.fromkeys(refs))


def read(address: str, keys: Keyring, rows: Mapping[StoredTag, Tag] = _NO_ROWS) -> Reading:
    """Return the tag that *address* (or its local part alone) carries, if a key of its sender signed it.

    Shape:   rows: the stored row of each form-h tag that `stored_refs` named; absent means unknown.
    Errors:  TagMalformed  no tag, or unreadable.                    permanent
             TagForged     no key matches, or no such stored tag.    permanent
    Repeat:  always safe: no effects.
    Why:     a repair counts only if the MAC then verifies; so trying many costs HMACs, never a wrong suppression.
    """
    shaped = False
    for repair, text in undamaged(address[:_MAX_READ]):
        for tail in _tails(text.rpartition("@")[0] or text):
            if signed := _SIGNED.fullmatch(tail):
                shaped = True
                tag = _tag_of(signed)
                key_index = _signer(tag, signed[2], keys) if tag else None
            elif stored := _STORED.fullmatch(tail):
                shaped = True
                tag = rows.get(StoredTag(stored[1]))
                key_index = _signer_of_stored(tag, stored[1], keys) if tag else None
            else:
                continue
            if tag and key_index is not None:
                return Reading(tag, repair, key_index)
    if shaped:
        raise TagForged(f"tag in an address of {len(address)} characters: no active key of its sender signed it")
    raise TagMalformed(f"address of {len(address)} characters: it carries no tag")


def _tag_of(signed: re.Match[str]) -> Tag | None:
    form, _, sender, group, text = signed.groups()
    if int(group) > MAX_GROUP:
        return None
    if form == "a":
        local_part, _, domain = text.rpartition("_")
        recipient = f"{local_part}@{domain}"
    else:
        try:
            recipient = base64.b32decode(text.upper() + "=" * (-len(text) % 8)).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
    try:
        return Tag(sender, int(group), recipient) if canonical(recipient) == recipient else None
    except AddressError:
        return None


def _signer_of_stored(tag: Tag, mac: str, keys: Keyring) -> int | None:
    if is_forgotten(tag.recipient):
        return 0  # its address is gone: 26 characters that nobody could guess must do (semantics §8)
    return _signer(tag, mac, keys)


def _signer(tag: Tag, mac: str, keys: Keyring) -> int | None:
    for index, key in enumerate(keys.sender_keys(tag.sender)):
        if hmac.compare_digest(mac.encode(), _mac(key, tag)[: len(mac)].encode()):
            return index
    return None
