"""The suppression row as it lies in Redis. `register.lua` decides what is written."""

from functools import lru_cache
from typing import NamedTuple

# One byte a row; append only, a removed name keeps its place.
SOURCE_KINDS = (
    "unknown", "imap", "maildir", "lmtp", "pipe", "relay", "sendgrid", "ses", "mailgun", "postmark", "postal",
    "cloudmailin", "mandrill", "sparkpost", "mailjet", "forwardemail", "resend", "mailersend", "brevo", "mailtrap",
    "one-click", "page", "api", "operator", "import", "provider",
)  # fmt: skip
_HOLDING = ("api", "operator", "import", "provider")
_RELEASING = ("api", "operator")
_DATED = ("provider",)
_NAMING = ("api", "operator", "import")
SUPPRESSED, HELD, COMPLAINT = 1, 2, 4  # the flags of a row
OTHER_TIME = 8  # of a request alone: an undated import, or a resubscribe that was made elsewhere, at its event time
_WITH_FIRST_SEEN = (20, 26)  # left out where it is the second of the event time
_SOURCES = 256  # more than anybody has at a time
_LATEST_MS = (1 << 48) - 1


class Row(NamedTuple):
    """One suppression row.

    Units:   first_seen_s: seconds UTC; time_ms: event time, milliseconds UTC.
    Shape:   source: a kind of SOURCE_KINDS. evidence: first 8 bytes of the request id that last changed the row.
             version: differs whenever the row differs.
    """

    suppressed: bool
    held: bool
    complaint: bool
    first_seen_s: int
    time_ms: int
    source: str
    evidence: bytes
    version: bytes


def pack(time_ms: int, flags: int, source: str, evidence: bytes) -> bytes:
    """Return the row that a request wishes for, 16 bytes: what it writes where there is none.

    Units:   time_ms: the event time; the script makes now of a later one.
    """
    time_ms = max(0, min(time_ms, _LATEST_MS))
    return (time_ms << 16 | flags << 8 | source_code(source)).to_bytes(8) + evidence


def unpack(packed: bytes) -> Row:
    """Return the row that *packed* (16, 20, 22 or 26 bytes) holds."""
    flags, code, time_ms = packed[6], packed[7], int.from_bytes(packed[:6])
    return Row(
        suppressed=is_suppressed(packed),
        held=bool(flags & HELD),
        complaint=bool(flags & COMPLAINT),
        first_seen_s=int.from_bytes(packed[-4:]) if len(packed) in _WITH_FIRST_SEEN else time_ms // 1000,
        time_ms=time_ms,
        source=SOURCE_KINDS[code] if code < len(SOURCE_KINDS) else "unknown",
        evidence=packed[8:16],
        version=packed,
    )


def is_suppressed(packed: bytes) -> bool:
    """Say whether a row suppresses: the one thing that counting a million of them asks."""
    return bool(packed[6] & SUPPRESSED)


@lru_cache(_SOURCES)
def source_code(source: str) -> int:
    """Return the byte for *source* ("imap:INBOX" counts as "imap")."""
    kind = source.partition(":")[0]
    return SOURCE_KINDS.index(kind) if kind in SOURCE_KINDS else 0


@lru_cache(_SOURCES)
def holds(source: str) -> bool:
    """Say whether an entry by this source holds the row, so that no tag lifts it."""
    return source.partition(":")[0] in _HOLDING


def releases(source: str) -> bool:
    """Say whether a resubscribe by this source may lift a held row: an import can add, never remove."""
    return source.partition(":")[0] in _RELEASING


def is_dated(source: str) -> bool:
    """Say whether a resubscribe by this source counts from its event time: it was made elsewhere, and we heard of it later."""
    return source.partition(":")[0] in _DATED


def names_group(source: str) -> bool:
    """Say whether an entry by this source was made for its very group by somebody who chose it: it stops an essential one."""
    return source.partition(":")[0] in _NAMING
