"""How a sender's recipients were told to unsubscribe before unsubd: one `SenderSource` per address or pattern."""

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any

from handlers.address import canonical
from handlers.errors import Rejected
from handlers.pattern import Pattern


class Kind(Enum):
    """What kind of identification a source reads."""

    VERP = "verp"
    CIVICRM = "civicrm"
    MAUTIC = "mautic"
    SUBJECT = "subject"
    LOOKUP = "lookup"
    ADDRESS = "address"

    @property
    def words(self) -> str:
        """What people call it."""
        return _WORDS[self]

    @property
    def opaque(self) -> bool:
        """Say whether it carries a token that only the imported table can read."""
        return self not in (Kind.VERP, Kind.ADDRESS)


_WORDS = {
    Kind.VERP: "plain VERP", Kind.CIVICRM: "CiviCRM token", Kind.MAUTIC: "Mautic token",
    Kind.SUBJECT: "subject token", Kind.LOOKUP: "opaque token", Kind.ADDRESS: "fixed address",
}  # fmt: skip


class Trust(Enum):
    """What makes an author believed."""

    NONE = "none"
    DMARC = "dmarc"


@dataclass(frozen=True, slots=True)
class SenderSource:
    """One way in which a sender's recipients were told to unsubscribe before unsubd.

    Shape:   pattern: a `Pattern`, or the canonical address itself. group: of the requests, unless the table says another.
             authserv_id: "" without trust. known_only: the author must be in the sender's imported set of recipients.
    """

    sender: str
    kind: Kind
    pattern: str
    group: int = 0
    trust: Trust = Trust.NONE
    authserv_id: str = ""
    known_only: bool = False

    @property
    def id(self) -> str:
        """8 hex digits: the same for the same sender, kind and pattern, so that adding it again replaces it."""
        return sha256("\0".join((self.sender, self.kind.value, self.pattern)).encode()).hexdigest()[:8]

    def checked(self) -> "SenderSource":
        """Return the source as it is kept.

        Errors:  Rejected  a pattern without the fields of its kind, or trust and authserv-id that do not fit.    permanent
        """
        pattern = canonical(self.pattern) if self.kind is Kind.ADDRESS else self.pattern
        names = () if self.kind is Kind.ADDRESS else Pattern.parse(pattern).fields
        wanted = {Kind.VERP: {"user", "host"}, Kind.ADDRESS: set()}.get(self.kind, {"token"})
        if not wanted <= set(names) or ("@" in pattern) == (self.kind is Kind.SUBJECT):
            place = "a subject" if self.kind is Kind.SUBJECT else "an address"
            expected = " and ".join(f"{{{name}}}" for name in sorted(wanted))
            raise Rejected(f"pattern {pattern[:60]!r}: kind {self.kind.value} expects {place} with {expected}")
        if (self.trust is Trust.DMARC) != bool(self.authserv_id):
            raise Rejected(
                f"authserv-id {self.authserv_id[:40]!r}: expected with trust dmarc, and only then, e.g. mx.example.com"
            )
        if self.kind.opaque and (self.trust is Trust.DMARC or self.known_only):
            raise Rejected(
                f"kind {self.kind.value}: expected neither trust nor known recipients: its table proves a token"
            )
        return SenderSource(**{**self._fields(), "pattern": pattern})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def as_wire(self) -> dict[str, Any]:
        """Return JSON values; `from_wire` undoes it."""
        return {**self._fields(), "kind": self.kind.value, "trust": self.trust.value}

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> "SenderSource":
        """Errors: KeyError, TypeError, ValueError  not what `as_wire` wrote."""
        known = {name: wire[name] for name in cls.__slots__ if name in wire}
        return cls(**{**known, "kind": Kind(wire["kind"]), "trust": Trust(wire["trust"])})


def source_kind(pattern: str) -> Kind:
    """Return the kind that a pattern's fields suggest.

    Example:
        >>> source_kind("u.{job}.{queue}.{token}@civi.example.org"), source_kind("unsubscribe:{token}")
        (<Kind.CIVICRM: 'civicrm'>, <Kind.SUBJECT: 'subject'>)
    """
    if "{" not in pattern:
        return Kind.ADDRESS
    if "@" not in pattern:
        return Kind.SUBJECT
    if "{user}" in pattern:
        return Kind.VERP
    if "{queue}" in pattern:
        return Kind.CIVICRM
    return Kind.MAUTIC if "unsubscribe_{token}@" in pattern else Kind.LOOKUP
