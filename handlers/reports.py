"""What machines send: bounces, receipts, complaints, calendar replies, challenges, aggregates. Recognised by structure.

Each sign is narrow on purpose: a missed request is worse than a false one, so whatever is not surely a report stays
a message whose tag counts. Complaints are read in `handlers.complaints`, automatic replies in `handlers.automatic`.

RFC: 3464 (DSN), 8098 (MDN), 5965 (ARF), 5546 (iTIP), 8460 (TLS reports), 7489 (DMARC).
"""

import re

from handlers import complaints, mime
from handlers.automatic import is_challenge
from handlers.message import InboundMessage, addresses, once
from handlers.mime import Part
from handlers.request import Outcome

_OUTCOMES = {
    "delivery-status": Outcome.BOUNCE,
    "disposition-notification": Outcome.MDN,
    "feedback-report": Outcome.COMPLAINT,
    "tlsrpt": Outcome.REPORT,
}
_ROBOT = re.compile(r"[\W_]{0,9}(?:mailer-daemon|postmaster)\b", re.I)
_METHOD_REPLY = re.compile(rb"^method[ \t]*:[ \t]*(?:reply|counter)\s*$", re.I | re.M)
_REPLY_METHODS = ("reply", "counter")  # both are an attendee's answer
_AGGREGATE_TYPES = ("application/tlsrpt+gzip", "application/tlsrpt+json")
_AGGREGATE_NAME = re.compile(
    r"[^!\s]{1,255}![^!\s]{1,255}!\d{9,11}!\d{9,11}(?:![^!\s]{1,99})?\.(?:xml|json|zip|gz|xml\.gz|json\.gz)"
)
_REPORT_SUBJECT = re.compile(r"\s{0,9}report domain:", re.I)
_SETUP_NOTIFICATION = "AMAZON_SES_SETUP_NOTIFICATION"


@once
def report(message: InboundMessage) -> Outcome | None:
    """Return the outcome of a report that its structure betrays, None when the message is no report."""
    if message.values("x-ms-journal-report"):
        return Outcome.JOURNAL
    if complaints.feedback_type(message) in complaints.NO_COMPLAINT:
        return Outcome.REPORT
    if found := _OUTCOMES.get(mime.report_type(message.content_type, message.parts)):
        return found
    if complaints.complaint(message):
        return Outcome.COMPLAINT
    if _is_aggregate(message):
        return Outcome.REPORT
    if is_challenge(message):
        return Outcome.CHALLENGE
    return Outcome.PING if is_ping(message) else None


def looks_like_report(message: InboundMessage) -> bool:
    """Say whether the whole structure should be seen before deciding: a cut may hide the part that makes a report."""
    kind = message.content_type
    return kind.is_multipart or kind.name == "text/calendar" or report(message) is not None


def _is_aggregate(message: InboundMessage) -> bool:
    """DMARC's and TLS's daily reports: by the registered type, the file's name, or the subject that RFC 7489 fixes."""
    if message.value("tls-report-domain") or _REPORT_SUBJECT.match(message.text("subject")):
        return True
    kinds = [message.content_type, *(part.content_type for part in message.parts)]
    return any(
        kind.name in _AGGREGATE_TYPES or _AGGREGATE_NAME.fullmatch(kind.parameters.get("name", "")) for kind in kinds
    )


def is_ping(message: InboundMessage) -> bool:
    """Say whether a provider only tries its set-up: Amazon SES writes one such message for each new receipt rule.

    Why:     by its Message-ID alone, which nobody's request has; other providers' pings are no messages at all.
    """
    return _SETUP_NOTIFICATION in message.value("message-id")


@once
def is_bounce(message: InboundMessage) -> bool:
    """Null sender or author, mailer-daemon, postmaster, X-Failed-Recipients: 98 % of 606 bounces have one."""
    return (
        message.envelope_from == ""
        or message.value("from").endswith("<>")
        or _is_robot(message.value("from"))
        or bool(message.values("x-failed-recipients"))
    )


def _is_robot(author: str) -> bool:
    """A local part says so; a domain or a display name may be anybody's. Some robots give no address at all."""
    locals_ = [address.rpartition("@")[0] for address in addresses(author)]
    return any(_ROBOT.match(text) for text in locals_) or (not locals_ and bool(_ROBOT.match(author)))


@once
def is_calendar_reply(message: InboundMessage) -> bool:
    """A text/calendar part, or the whole message, with METHOD REPLY: as a parameter or as a line."""
    whole = Part(message.content_type, message.headers, message.body, 0)
    return any(
        part.content_type.parameters.get("method", "").lower() in _REPLY_METHODS or _METHOD_REPLY.search(part.body())
        for part in (whole, *message.parts)
        if part.content_type.name == "text/calendar"
    )
