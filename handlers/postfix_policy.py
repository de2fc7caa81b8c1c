"""Postfix's policy protocol: name=value lines up to an empty one ask whether one recipient of one mail may be mailed.

RFC: none; Postfix's SMTPD_POLICY_README says which names there are, and to ignore those that one does not know.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers.errors import PayloadInvalid
from handlers.route import Origin

PERMIT = "DUNNO"
REFUSE = "550 5.7.1 unsubscribed: this recipient wants no more of this mail"
DISCARD = "DISCARD unsubscribed"
LATER = "450 4.3.0 unsubscribes cannot be looked up now: try again"
ALONE = "452 4.5.3 one recipient at a time: some of this mail's are unsubscribed"
NO_ADDRESS = "550 5.1.3 not an address that unsubscribes can be looked up for"
NOT_AT_RCPT = (
    "451 4.3.5 unsubd was not asked about one recipient: check_policy_service belongs in smtpd_recipient_restrictions"
)
_ATOM = re.compile(r"[^\s\"(),:;<>@\[\\\]]+")


@dataclass(frozen=True, slots=True)
class Question:
    """What Postfix asks. Shape: recipient: as SMTP spells it, "" when none is named. mail: the same for one mail's questions."""

    origin: Origin
    recipient: str
    mail: str


def read(lines: Sequence[bytes]) -> Question:
    """Return the question that *lines* ask, their line ends taken off.

    Errors:  PayloadInvalid  not a request of this protocol.    permanent
    """
    named = dict(_named(line) for line in lines)
    if named.get("request") != "smtpd_access_policy":
        raise PayloadInvalid(f"policy request of {len(lines)} lines: expected request=smtpd_access_policy")
    origin = Origin(named.get("sender", ""), named.get("sasl_username", ""), named.get("server_port", ""))
    return Question(origin, _as_smtp_spells(named.get("recipient", "")), named.get("instance", ""))


def _named(line: bytes) -> tuple[str, str]:
    name, equals, value = line.decode("utf-8", "replace").partition("=")
    if not equals:
        raise PayloadInvalid(f"policy line of {len(line)} octets: expected name=value")
    return name, value


def _as_smtp_spells(recipient: str) -> str:
    """Postfix takes the quotes off: `jane doe@example.com` was `"jane doe"@example.com`, and is stored so.

    Example:
        >>> _as_smtp_spells("jane doe@example.com"), _as_smtp_spells("jane@example.com")
        ('"jane doe"@example.com', 'jane@example.com')
    """
    local_part, at, domain = recipient.rpartition("@")
    if not at or _ATOM.fullmatch(local_part):
        return recipient
    return '"' + re.sub(r'(["\\])', r"\\\1", local_part) + f'"@{domain}'


def reply(action: str) -> bytes:
    """Return the octets of an answer.

    Example:
        >>> reply(PERMIT)
        b'action=DUNNO\\n\\n'
    """
    return f"action={action}\n\n".encode()


def action_of(suppressed: bool, discard: bool, mates: Mapping[bool, int]) -> str:
    """Return what becomes of a recipient; *mates*: how many of the mail's recipients were suppressed, and how many not.

    Why:     DISCARD drops the whole mail, so a mail that is to be discarded for one recipient must not be for others too.
    """
    if not discard:
        return REFUSE if suppressed else PERMIT
    if mates.get(not suppressed, 0):
        return ALONE
    return DISCARD if suppressed else PERMIT
