"""What of the ledger counts as received, and as what: received = honoured + complaint + ignored + quarantined.

The decision alone does not say it. Mail of a shared mailbox that has nothing of ours stays where it is (`LEFT`): its
decision is `quarantine:no-tag`, but nobody waits for it and the quarantine has no copy, so it counts as ignored. And what
no recipient asked for stands apart, as one of APART:

    entry   what an operator or a program with a key entered in his own name
    return  a resubscribe, or the undo of a change
    test    a canary, or a post of `unsubd hook test`
"""

from collections.abc import Iterable, Mapping
from typing import Any

from handlers.request import Action, DecidedMessage, Outcome

KINDS = ("honoured", "complaint", "ignored", "quarantined")
APART = ("entry", "return", "test")
LEFT = "left"  # the word for such a message, and the fact in its evidence
HOOK_TEST = "hooktest"  # the sender of a hook's test: nobody may register it


def kind_of(outcome: Outcome, evidence: Mapping[str, str]) -> str:
    """Return which of KINDS a message is.

    Example:
        >>> kind_of(Outcome.NO_TAG, {}), kind_of(Outcome.NO_TAG, {"left": "not ours"})
        ('quarantined', 'ignored')
    """
    if outcome is Outcome.HONOUR:
        return "honoured"
    if outcome is Outcome.COMPLAINT:
        return "complaint"
    return "quarantined" if outcome.quarantined and LEFT not in evidence else "ignored"


def word_of(outcome: Outcome, evidence: Mapping[str, str]) -> str:
    """Return what became of a message, in one word: its outcome, or "left"."""
    return LEFT if LEFT in evidence else outcome.value


def apart(message: DecidedMessage) -> str:
    """Return which of APART a message is, "" when it came from a recipient."""
    return _apart(message.source, message.evidence, [(each.action.value, each.sender) for each in message.requests])


def record_apart(record: Mapping[str, Any]) -> str:
    """Return the same of a record of the ledger."""
    asks = [(each.get("action", ""), each["sender"]) for each in record["requests"]]
    return _apart(record["source"], record["evidence"], asks)


def _apart(source: str, evidence: Mapping[str, str], asks: Iterable[tuple[str, str]]) -> str:
    actions, senders = {action for action, _ in asks}, {sender for _, sender in asks}
    if "canary" in evidence or senders == {HOOK_TEST}:
        return "test"
    if actions == {Action.RESUBSCRIBE.value}:
        return "return"
    # What an operator makes of a quarantined message is a recipient's request; an entry of his own names its actor.
    return "entry" if source in ("operator", "api") and "actor" in evidence else ""
