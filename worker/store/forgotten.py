"""Names of people whose address was forgotten: keyed, the same on every repeat, and no way back to the address.

A row of a forgotten recipient lies under such a name; whoever mints or checks knows the address and can compute it.
"""

import binascii
from functools import lru_cache
from hashlib import sha256
from typing import Any

from handlers.tag import FORGOTTEN, is_forgotten

_OCTETS = 12
_SENDERS = 1024  # whose beginning is kept: a list is of one
_BEGIN = FORGOTTEN.encode()
_URL_SAFE, _PLAIN = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


class ForgottenNames:
    """The names of one installation. Shape: key: the pseudonym key, which is never rotated (semantics §7).

    Why:     HMAC-SHA256 with both pads hashed once: a check needs it for every address, and OpenSSL's own takes three times
             as long to begin.
    RFC:     2104
    """

    def __init__(self, key: bytes) -> None:
        padded = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
        self._inner = sha256(bytes(octet ^ 0x36 for octet in padded))
        self._outer = sha256(bytes(octet ^ 0x5C for octet in padded))
        self._begun = lru_cache(_SENDERS)(self._begin)

    def __call__(self, sender: str, recipient: str) -> str:
        """Return "~" and 16 characters for a canonical recipient; a name stays as it is."""
        if is_forgotten(recipient):
            return recipient
        return _name(self.digest(sender, recipient.encode("utf-8", "surrogateescape"))).decode()

    def both(self, sender: str, recipient: bytes) -> tuple[bytes, bytes]:
        """Return the digest that a name spells, 12 octets, and the name, of a canonical recipient or of a name."""
        if _is_name(recipient):
            return self.digest(sender, recipient), recipient
        digest = self._keyed(sender, recipient)
        return digest, _name(digest)

    def digest(self, sender: str, recipient: bytes) -> bytes:
        """Return the first that `both` does, for half the work: who splits a bucket asks for each of its fields."""
        if _is_name(recipient) and (digest := _digest(recipient)):
            return digest
        return self._keyed(sender, recipient)

    def _keyed(self, sender: str, recipient: bytes) -> bytes:
        inner, outer = self._begun(sender).copy(), self._outer.copy()
        inner.update(recipient)
        outer.update(inner.digest())
        return outer.digest()[:_OCTETS]

    def _begin(self, sender: str) -> Any:
        inner = self._inner.copy()
        inner.update(sender.encode("utf-8", "surrogateescape") + b"\0")
        return inner


def _is_name(recipient: bytes) -> bool:
    return recipient[:1] == _BEGIN and b"@" not in recipient


def _name(digest: bytes) -> bytes:
    return _BEGIN + binascii.b2a_base64(digest, newline=False).translate(_URL_SAFE)


def _digest(name: bytes) -> bytes:
    """The digest of a name; empty when it was not made by us."""
    try:
        digest = binascii.a2b_base64(name[1:].translate(_PLAIN))
    except binascii.Error:
        return b""
    return digest if len(digest) == _OCTETS else b""
