"""What a person might make of mail that proves nothing: does it ask, and who, which sender, which group is meant?

A suggestion suppresses nobody: it saves the person who works through the quarantine the reading. So it may believe From,
a quotation and a phrase, and says in `why` which of them it believed.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from handlers import automatic, reports, tag
from handlers.authentication import author
from handlers.body import texts
from handlers.errors import Rejected
from handlers.foreign import matches
from handlers.message import InboundMessage, once
from handlers.phrases import folded, languages
from handlers.quotation import own_text
from handlers.request import Suggestion
from handlers.sender_source import SenderSource
from handlers.tag import Keyring, StoredTag, Tag

_MAX_SUBJECT = 300
_MAX_TAGS = 50
_SHORT_TEXT = 300  # a single word asks only where little else is said
_LIST_HEADERS = ("list-id", "list-post", "list-unsubscribe")
_ANSWER = re.compile(
    r"\s*(?:(?:re|aw|fwd?|wg|sv|vs|antw|odp|tr|rv|enc|res|回复|回覆|转发|轉寄|返信|ответ)\s*[:：]\s*)", re.I
)
_PAUSE = re.compile(r"\.(?=\s|$)|[,;:!?…。、！？，；：()\[\]\"«»„“”|]+|\n\s*\n|--+")
# It begins with the letters that a tag begins with, so that the engine skips to the next of them: 7 times as fast.
_TAG = re.compile(
    r"[ABHabh](?<![A-Za-z0-9][ABHabh])"
    r"(?:(?<=[ABab])[A-Za-z2-7]{13}-[A-Za-z0-9]{1,16}-[0-9]{1,10}-[A-Za-z0-9._-]{1,200}"
    r"|(?<=[Hh])[A-Za-z2-7]{26}(?![A-Za-z0-9]))"
)
_NO_ROWS: Mapping[StoredTag, Tag] = MappingProxyType({})


@once
def asks(message: InboundMessage) -> str:
    """Return what makes *message* a person's request, e.g. 'English: "remove me"'; "" when nothing does.

    Shape:   read are the Subject and the person's own text, the first 4,000 characters; no address in the answer.
    Why:     a quotation holds the newsletter's own "unsubscribe"; automatic and list mail asks nobody; "do not unsubscribe
             me" is the opposite.
    """
    if client := automatic.client_mark(message):
        return f"unsubscribe function of {client}"
    if automatic.is_automatic(message) or _is_report(message) or is_list_mail(message):
        return ""
    subject = message.text("subject")[:_MAX_SUBJECT]
    bare = _ANSWER.sub("", subject, count=3)
    return _request_alone(bare) or _request_in_text(own_text(texts(message)), "" if bare != subject else subject)


def _is_report(message: InboundMessage) -> bool:
    return reports.is_bounce(message) or reports.report(message) is not None or reports.is_calendar_reply(message)


def is_list_mail(message: InboundMessage) -> bool:
    """Say whether a mailing list or a bulk sender wrote it."""
    return bool(message.named(_LIST_HEADERS)) or message.value("precedence").lower() in ("list", "bulk", "junk")


def _request_in_text(text: str, subject: str) -> str:
    sentences = [folded(each) for each in (*_PAUSE.split(subject), *_PAUSE.split(text))]
    for language in languages():
        for sentence in sentences:
            if words := language.request_in(sentence):
                return f'{language.name}: "{words}"'
    return _request_alone(text) if len(text) <= _SHORT_TEXT else ""


def _request_alone(text: str) -> str:
    sentences = [folded(each) for piece in _PAUSE.split(text) for each in piece.split("\n")]
    for language in languages():
        for sentence in sentences:
            if words := language.request_alone(sentence):
                return f'{language.name}: "{words}"'
    return ""


def suggest(
    message: InboundMessage,
    keys: Keyring,
    sources: Sequence[SenderSource],
    senders: Sequence[str],
    rows: Mapping[StoredTag, Tag] = _NO_ROWS,
) -> Suggestion | None:
    """Return whom a request without a tag of its own may be about, None when it does not ask or names nobody.

    Shape:   senders: the ids of all that are registered. rows: the stored rows of `quoted_refs`. In this order: a tag that
             verifies in the body (the quoted original), one about the author before all others; a sender's configured
             address among the recipients, with the author as the recipient; the only sender there is; else no sender.
    Errors:  none. Linear in the first 256 K of the text.
    """
    asked = asks(message)
    if not asked:
        return None
    writer = author(message)
    quoted = _quoted_tags(message, keys, rows)
    if quoted:
        found = next((each for each in quoted if each.recipient == writer), quoted[0])
        whose = "the author's own" if found.recipient == writer else "not the author's"
        return Suggestion(found.sender, found.group, found.recipient, f"{asked}; signed tag in the body, {whose}")
    if writer is None:
        return None
    if match := next(matches(message, sources), None):
        source = match.source
        return Suggestion(source.sender, source.group, writer, f"{asked}; to a {source.kind.words} of this sender")
    if len(senders) == 1:
        return Suggestion(senders[0], 0, writer, f"{asked}; the only sender, recipient taken from From")
    return Suggestion("", 0, writer, f"{asked}; sender not known, recipient taken from From")


def quoted_refs(message: InboundMessage) -> list[StoredTag]:
    """Return the stored tags that the body of an asking message may hold: fetch them for `suggest`, or do without."""
    found = list(dict.fromkeys(ref for text in _tag_texts(message) for ref in tag.stored_refs(text)))
    return found if found and asks(message) else []  # in this order: few messages hold one, and asking is dear


def _quoted_tags(message: InboundMessage, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> list[Tag]:
    found: dict[Tag, None] = {}
    for text in _tag_texts(message):
        try:
            found[tag.read(text, keys, rows).tag] = None
        except Rejected:
            continue  # of a tag's shape only
    return list(found)


@once
def _tag_texts(message: InboundMessage) -> list[str]:
    """What in the body has a tag's shape, each once, at most 50; a full stop behind a link is no part of it."""
    contents = (_with_plus(text.content) for text in texts(message))
    found = (match[0].rstrip(".-_").lower() for content in contents for match in _TAG.finditer(content))
    return list(dict.fromkeys(found))[:_MAX_TAGS]


def _with_plus(text: str) -> str:
    return text.replace("%2b", "+").replace("%2B", "+") if "%2" in text else text
