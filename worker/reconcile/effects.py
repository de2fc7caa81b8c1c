"""The ledger against the store: a suppression that was honoured must have its row, suppressed or lifted since."""

from collections.abc import Callable, Collection

from worker.installation import Installation
from worker.reconcile.jobs import message_keys

_HONOURED = ("added", "already-present")  # of no resubscribe: that is lifted, or not
Place = tuple[int, str]  # group, pseudonym


def compare(installation: Installation, since_ms: int, known: Collection[str], note: Callable[..., None]) -> int:
    """Take down the honoured requests whose row is gone; return how many records were read.

    Shape:   known: keys of messages that were found already.
    Limits:  a record's pseudonym tells nothing of a person who was forgotten since, so a sender's gaps count only beyond
             the number of those.
    """
    waiting = message_keys(installation) | set(known)
    count, wanted = 0, dict[str, dict[Place, str]]()
    for key, record in installation.ledger.records():
        count += 1
        if record["received_ms"] >= since_ms and key not in waiting:
            for each in record["requests"]:
                if each["effect"] in _HONOURED:
                    wanted.setdefault(each["sender"], {})[each["group"], each["recipient"]] = key
    for sender, places in wanted.items():
        found = _found(installation, sender, {group for group, _ in places} | {0})
        lost = {place: key for place, key in places.items() if not {place, (0, place[1])} & found}
        names = [key[:12] for key in sorted(lost.values())]
        beyond = len({pseudonym for _, pseudonym in lost}) - installation.store.forgotten_count(sender)
        if beyond > 0:
            note("unrestorable", names[:beyond], repaired=False)
    return count


def _found(installation: Installation, sender: str, groups: set[int]) -> set[Place]:
    bare = installation.pseudonyms.bare
    return {(group, bare(name)) for group, name, _ in installation.store.known(sender, groups)}
