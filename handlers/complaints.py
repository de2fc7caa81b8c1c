"""Complaints: somebody pressed "spam" on a mail of ours, and a feedback loop sends it back.

Two forms: ARF (RFC 5965), a report with a message/feedback-report part, and Hotmail's JMRP, the embedded mail with
`X-HmXmrOriginalRecipient` or, in its old form, the bare mail with a Return-Path of staff@hotmail.com. Who complained is
said by our tag in the embedded original, which must verify like any tag; what the reporter says is a hint for a person.

RFC: 5965 (ARF), 6591 (auth-failure), 2369 (List-Unsubscribe), 6068 (mailto).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from handlers import mime
from handlers.message import Candidate, InboundMessage, addresses, decoded, distinct, once
from handlers.mime import Fields

TAG_HEADER = "X-Unsubd-Tag"  # a tag or its whole address; for mail whose List-Unsubscribe a feedback loop removes
NO_COMPLAINT = ("auth-failure", "not-spam", "virus")  # these say something else, and do nothing
_KINDS = {"opt-out-list": "opt-out", "": "other"}
_ORIGINALS = (
    "message/rfc822",
    "message/global",
    "text/rfc822-headers",
    "message/rfc822-headers",
    "message/global-headers",
)
_JMRP_RECIPIENT = "x-hmxmroriginalrecipient"
_JMRP_AUTHOR = "staff@hotmail.com"
_MAX_HINT = 320
_MAX_LINK = 2000
_WORD = re.compile(r"[a-z0-9_-]{1,40}")
_LINK = re.compile(r"https?://[^\s<>,\"]+", re.I)
_MAILTO = re.compile(r"mailto\s*:([^<>?]*)", re.I)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a feedback loop reports.

    Shape:   kind: "abuse", "fraud", "opt-out", "other"…; "opt-out" asks for an unsubscribe. candidates: where the
             embedded original may name our tag, in the order of trust. hint: the recipient that the reporter names,
             "" when there is none; it proves nothing and is for a person only.
    """

    kind: str
    candidates: tuple[Candidate, ...]
    hint: str


@once
def complaint(message: InboundMessage) -> Complaint | None:
    """Return what *message* complains about, None when it is no complaint (also for `NO_COMPLAINT`)."""
    kind = feedback_type(message)
    if kind in NO_COMPLAINT:
        return None
    if kind is not None:
        report = _feedback_fields(message)
        hint = mime.field(report, "original-rcpt-to")
        return Complaint(_KINDS.get(kind, kind), distinct(_named(_original(message))), _hint(hint))
    if (original := _of_hotmail(message)) is not None:
        return Complaint("abuse", distinct(_named(original)), _hint(mime.field(original, _JMRP_RECIPIENT)))
    return None


def is_from_a_feedback_loop(message: InboundMessage) -> bool:
    """Say whether *message* is a report by its own structure or author, not for what is attached to it."""
    authors = [*message.values("from"), *message.values("return-path")]
    if any(_JMRP_AUTHOR in author.lower() for author in authors):
        return True
    return feedback_type(message) is not None


@once
def feedback_type(message: InboundMessage) -> str | None:
    """Return the Feedback-Type in lower case, "" when the report does not say, None when there is no report."""
    if mime.report_type(message.content_type, message.parts) != "feedback-report":
        return None
    word = _WORD.match(mime.field(_feedback_fields(message), "feedback-type").lower())
    return word[0] if word else ""


def _feedback_fields(message: InboundMessage) -> Fields:
    bodies = [part.body() for part in message.parts if part.content_type.name == "message/feedback-report"]
    # Without readable parts the report's fields are somewhere in the body: better than not to know a not-spam.
    return mime.read_fields(bodies[0].lstrip(b"\n") if bodies else message.body)


def _original(message: InboundMessage) -> Fields:
    for part in message.parts:
        if part.content_type.name in _ORIGINALS:
            return mime.read_fields(mime.split_header(part.body().lstrip(b"\r\n"))[0])
    return ()


def _of_hotmail(message: InboundMessage) -> Fields | None:
    original = _original(message)
    if mime.field(original, _JMRP_RECIPIENT):
        return original
    if _JMRP_AUTHOR in message.value("from").lower() and "complaint about" in message.text("subject").lower():
        return original
    if any(value.strip("<> ").lower() == _JMRP_AUTHOR for value in message.values("return-path")):
        return message.headers
    return None


def _hint(value: str) -> str:
    text = decoded(value)[:_MAX_HINT]
    return next(addresses(text), "") if "@" in text else ""


def _named(original: Fields) -> Iterator[tuple[str, str]]:
    """Yield (header, address) of whatever in the original may be our tag."""
    for value in _values(original, "list-unsubscribe"):
        yield from (("list-unsubscribe", address) for address in _unsubscribe_addresses(decoded(value)))
    for value in _values(original, TAG_HEADER.lower()):
        yield TAG_HEADER.lower(), value.strip("<> ")
    for value in _values(original, "return-path"):
        yield from (("return-path", address) for address in addresses(value))


def _values(fields: Fields, name: str) -> list[str]:
    return [value for each, value in fields if each == name]


def _unsubscribe_addresses(value: str) -> Iterator[str]:
    for named in _MAILTO.finditer(value):
        yield from (address.strip() for address in named[1].split(",") if "@" in address)
    for link in _LINK.finditer(value):
        host, *path = link[0][:_MAX_LINK].partition("://")[2].partition("?")[0].split("/")
        yield from (f"{tag}@{host}" for page, tag in pairwise(path) if page in ("u", "p") and tag)
