"""What a polled mailbox logs in with: a password, or an OAuth 2.0 access token."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret and how IMAP is to be given it.

    Shape: `kind` "password" is for LOGIN, "token" is an access token for XOAUTH2;
        `secret` never shows in a repr.
    Errors: none.
    Repeat: a plain value.
    """

    kind: Literal["password", "token"]
    secret: str = field(repr=False)
