"""Names of people whose address was forgotten: keyed, the same on every repeat, and no way back to the address.

A row of a forgotten recipient lies under such a name; whoever mints or checks knows the address and can compute it.
"""

import base64
import hmac
from hashlib import sha256

from handlers.tag import FORGOTTEN, is_forgotten

_OCTETS = 12


class ForgottenNames:
    """The names of one installation. Shape: key: the pseudonym key, which is never rotated (semantics §7)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, sender: str, recipient: str) -> str:
        """Return "~" and 16 characters for a canonical recipient; a name stays as it is."""
        if is_forgotten(recipient):
            return recipient
        digest = hmac.digest(self._key, f"{sender}\0{recipient}".encode("utf-8", "surrogateescape"), sha256)
        return FORGOTTEN + base64.urlsafe_b64encode(digest[:_OCTETS]).decode()
