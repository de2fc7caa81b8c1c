"""A one-click whose stored tag could not be looked up, because the store was away: it is read when the job runs.

What no row stands behind goes to quarantine as `bad-tag`, as a mail that carries it: once the row is restored, a replay
reads it.
"""

from dataclasses import replace

from handlers import message, tag
from handlers.errors import Rejected
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from handlers.tag import StoredTag
from worker.installation import Installation


def read(installation: Installation, decided: DecidedMessage) -> DecidedMessage:
    """Return *decided* with the request that its unread tag makes; one that has none comes back as it is.

    Errors:  Unavailable  the store is still away.    temporary
    Repeat:  safe: the same request, or the same entry in quarantine.
    """
    if not decided.unread:
        return decided
    rows = installation.tags.found([StoredTag(ref) for ref in decided.unread.split()])
    for ref in decided.unread.split():
        try:
            found = tag.read(f"h{ref}", installation.keys, rows).tag
        except Rejected:
            continue
        names = (found.sender, found.group, found.recipient)
        wish = Request(
            request_id(decided.key, *names, Action.UNSUBSCRIBE), Action.UNSUBSCRIBE, *names, decided.received_ms,
            decided.source, decided.key,
        )  # fmt: skip
        return replace(decided, unread="", requests=(wish,))
    refused = replace(decided, unread="", outcome=Outcome.BAD_TAG, reason="a stored tag that nobody stored")
    installation.quarantine.keep([(_as_mail(decided), refused)])
    return refused


def _as_mail(decided: DecidedMessage) -> message.InboundMessage:
    recipients = ", ".join(f"<h{ref}@{decided.source}.invalid>" for ref in decided.unread.split())
    raw = f"To: {recipients}\r\nSubject: {decided.source}\r\n\r\n".encode()
    mail = message.read(raw, source=decided.source, received_ms=decided.received_ms)
    return replace(mail, key=decided.key)
