"""The headers in an `email.message.EmailMessage`, which would encode them: its generator must write them plain.

A module of its own, because the standard library's policies cost each start 10 ms. RFC: 2047 5 (no URI is encoded).
"""

from email import policy
from email.message import EmailMessage
from typing import Any

from handlers.headers import Lines, folded

POLICY = policy.SMTP.clone(max_line_length=998)  # CPython encodes any header with a piece of 78 characters otherwise


class _Plain(str):
    """A header's value that the standard library's generator writes as it stands, whatever its policy says."""

    name: str

    def fold(self, *, policy: Any) -> str:
        """What `EmailPolicy` calls to write a value that knows its name."""
        return folded(self.name, self, policy.linesep) + str(policy.linesep)


def put_into(message: EmailMessage, lines: Lines) -> None:
    """Give *message* these headers, instead of those of the same name, and a policy that keeps them intact.

    Why:     EmailMessage encodes a long piece as RFC 2047 forbids; with these values it does not, even when whoever sends
             the message writes it with `email.policy.SMTP`.
    """
    message.policy = POLICY
    for name, value in lines:
        del message[name]
        plain = _Plain(value)
        plain.name = name
        message[name] = plain
