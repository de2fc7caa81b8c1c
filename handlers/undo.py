"""The undo of a change just made: a capability that names the change, signed, and open for 24 hours.

    1764300000000.6f1c….-12:9a0b1c2d,+7:11223344.MAC
    made at ms    nonce  what was stopped (-) and started (+): group, and the version its row then had

It is good for its own tag alone, and for rows that nobody touched since: a later wish is never undone with it.
"""

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256

from handlers.errors import Rejected
from handlers.tag import Keyring, Tag

OPEN_MS = 24 * 3600 * 1000
_SHAPE = re.compile(r"([0-9]{1,15})\.([0-9a-f]{32})\.([-+:,0-9a-f]{1,8000})\.([0-9a-f]{64})")
_CHANGE = re.compile(r"([-+])([0-9]{1,10}):([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one group. Shape: stopped: else started. version: of its row after that, see `version_of`."""

    group: int
    stopped: bool
    version: str


@dataclass(frozen=True, slots=True)
class Undo:
    """A change just made. Units: made_ms: milliseconds UTC. Shape: nonce: 32 hex digits, of the form that asked for it."""

    made_ms: int
    nonce: str
    changes: tuple[Change, ...]


def version_of(packed: bytes | None) -> str:
    """Return eight digits that stand for a row as a person saw it; of none, zeros."""
    return sha256(packed).hexdigest()[:8] if packed else "0" * 8


def sign(keys: Keyring, tag: Tag, undo: Undo) -> str:
    """Return the text that undoes *undo*, for the holder of *tag*."""
    changes = ",".join(f"{'-' if each.stopped else '+'}{each.group}:{each.version}" for each in undo.changes)
    content = f"{undo.made_ms}.{undo.nonce}.{changes}"
    return f"{content}.{_mac(keys.sender_keys(tag.sender)[0], tag, content)}"


def read(keys: Keyring, tag: Tag, text: str, now_ms: int) -> Undo:
    """Return what *text* undoes.

    Errors:  Rejected  not signed by us for this tag, or older than 24 hours.    permanent
    """
    found = _SHAPE.fullmatch(text)
    content = text.rpartition(".")[0]
    if not found or not any(
        hmac.compare_digest(found[4].encode(), _mac(key, tag, content).encode()) for key in keys.sender_keys(tag.sender)
    ):
        raise Rejected(f"undo of {len(text)} characters: not signed for this link, expected the page's own button")
    made_ms = int(found[1])
    if not 0 <= now_ms - made_ms <= OPEN_MS:
        raise Rejected("undo: open for 24 hours, expected a newer one")
    changes = (_CHANGE.fullmatch(each) for each in found[3].split(","))
    return Undo(made_ms, found[2], tuple(Change(int(each[2]), each[1] == "-", each[3]) for each in changes if each))


def _mac(sender_key: bytes, tag: Tag, content: str) -> str:
    parts = ("unsubd-undo-1", tag.sender, str(tag.group), tag.recipient, content)
    return hmac.digest(sender_key, "\0".join(parts).encode(), sha256).hex()
