"""What must be true when everything is over, and every way in which it is not."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redis import Redis

from handlers.request import Action, request_id
from handlers.tag import Keyring, Tag
from tests.crash.mixture import Delivery
from tests.harness.dovecot import Mailbox
from tests.harness.names import NAMES
from tests.harness.service import MASTERS
from worker.keys import Pseudonyms, pseudonym_key
from worker.store import Store
from worker.store.ledger import Ledger

DONE = "$UnsubdDone"
_SHOWN = 5


@dataclass(frozen=True)
class Verdict:
    """The installation's end, against what was delivered. Shape: leave: UNSUBD_IMAP_UNTAGGED is `leave`."""

    redis: Redis
    mailbox: Mailbox
    deliveries: list[Delivery]
    leave: bool

    def settled(self) -> bool:
        """Say whether nothing is under way any more."""
        return not self._stranded() and self._waiting() == 0 and len(self._records()) >= len(self._keys())

    def problems(self) -> list[str]:
        """Return what is wrong, a line each; none when all is well."""
        checks = (self._of_store(), self._of_ledger(), self._of_quarantine(), self._of_folders(), self._of_queue())
        return [problem for check in checks for problem in check]

    def counters(self) -> dict[str, int]:
        """Return the counters of messages and requests."""
        rows: Any = self.redis.hgetall("unsubd:counters")
        return {name.decode(): int(count) for name, count in sorted(rows.items())}

    def _keys(self) -> dict[str, Delivery]:
        return {each.key: each for each in self.deliveries}

    def _records(self) -> list[tuple[str, dict[str, Any]]]:
        return list(Ledger(self.redis, lambda _: "").records())

    def _left(self, each: Delivery) -> bool:
        """Whether a mail must stay as it is."""
        return self.leave and each.wanted.foreign

    def _waiting(self) -> int:
        """How many mails more are in INBOX than must stay there."""
        maildir = self.mailbox.server.folder / "homes" / self.mailbox.user / "Maildir"
        there = sum(len(os.listdir(maildir / each)) for each in ("cur", "new"))
        return there - sum(self._left(each) for each in self.deliveries)

    def _of_store(self) -> Iterator[str]:
        wanted = {tag for each in self.deliveries for tag in each.wanted.tags}
        store = Store(self.redis, NAMES)
        rows = {(sender, group) for sender in store.senders() for group in store.groups(sender)}
        rows |= {(tag.sender, tag.group) for tag in wanted}
        found = {Tag(sender, group, name) for sender, group in rows for name, _ in store.listed(sender, group)}
        yield from _differences("suppression", wanted, found)

    def _of_ledger(self) -> Iterator[str]:
        records, keys = self._records(), self._keys()
        yield from _differences("ledger record", list(keys), [key for key, _ in records])
        for key, record in records:
            if key in keys and (problem := self._of_record(keys[key], record)):
                yield problem
        yield from self._of_effects(records)

    def _of_record(self, each: Delivery, record: dict[str, Any]) -> str:
        wanted = sorted(self._id(each, tag) for tag in each.wanted.tags)
        found = sorted(result["id"] for result in record["requests"])
        if (record["outcome"], found) == (each.wanted.outcome, wanted):
            return ""
        said = f"{record['outcome']} with {len(found)} requests ({record['reason']})"
        return f"mail {each.number}: {said}, expected {each.wanted.outcome} with {len(wanted)}"

    def _id(self, each: Delivery, tag: Tag) -> str:
        """A request's id as the ledger has it: keyed."""
        wish_id = request_id(each.key, tag.sender, tag.group, tag.recipient, Action.UNSUBSCRIBE)
        return self._pseudonyms.bare(wish_id)

    @cached_property
    def _pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(pseudonym_key(self.redis, Keyring(tuple(map(bytes.fromhex, MASTERS)))))

    def _of_effects(self, records: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
        """One request of each (sender, group, recipient) has added the row; any other found it there."""
        tag_of = {self._id(each, tag): tag for each in self.deliveries for tag in each.wanted.tags}
        effects = Counter(
            (tag_of.get(result["id"]), result["effect"]) for _, record in records for result in record["requests"]
        )
        wanted: Counter[tuple[Tag | None, str]] = Counter()
        for tag, count in Counter(tag_of.values()).items():
            wanted += Counter({(tag, "added"): 1, (tag, "already-present"): count - 1})
        yield from _differences("effect", wanted, effects)

    def _of_quarantine(self) -> Iterator[str]:
        wanted = {each.key[:32] for each in self.deliveries if self._kept(each)}
        for name in ("unsubd:quarantine", "unsubd:quarantine:raw"):
            entries: Any = self.redis.hkeys(name)
            yield from _differences(name, wanted, {entry.decode() for entry in entries})

    def _kept(self, each: Delivery) -> bool:
        to_a_person = each.wanted.outcome == "complaint" or each.wanted.outcome.startswith("quarantine:")
        return to_a_person and (each.wanted.suggested or not self._left(each))

    def _of_folders(self) -> Iterator[str]:
        """Every delivered mail is in one folder, once; handled ones marked and moved, those of others untouched."""
        inbox, processed = (self.mailbox.messages(folder) for folder in ("INBOX", "Processed"))
        left = {each.number for each in self.deliveries if self._left(each)}
        done = {each.number for each in self.deliveries} - left
        yield from _differences("mail in INBOX", Counter(left), Counter(_number(raw) for _, _, raw in inbox))
        yield from _differences("mail in Processed", Counter(done), Counter(_number(raw) for _, _, raw in processed))
        for _, flags, raw in inbox + processed:
            if flags != (expected := set() if _number(raw) in left else {DONE}):
                yield f"flags of mail {_number(raw)}: {flags}, expected {expected}"

    def _of_queue(self) -> Iterator[str]:
        yield from (f"{count} jobs in {name}" for name, count in self._stranded().items())
        for key in self.redis.scan_iter("rq:job:*", _type="hash"):
            if (state := self.redis.hget(key, "status")) not in (b"finished", None):
                yield f"{key.decode()} is {state!r}"

    def _stranded(self) -> dict[str, int]:
        """Jobs in any registry of RQ but that of finished ones."""
        sizes: dict[str, Callable[[bytes], Any]] = {"list": self.redis.llen, "zset": self.redis.zcard}
        return {
            key.decode(): size(key)
            for registry in ("queue", "wip", "scheduled", "failed", "deferred")
            for kind, size in sizes.items()
            for key in self.redis.scan_iter(f"rq:{registry}:*", count=1000, _type=kind)
        }


def _number(raw: bytes) -> int:
    match = re.match(rb"X-Delivery: (\d+)\r\n", raw)
    assert match is not None, raw[:80]
    return int(match[1])


def _differences(what: str, wanted: Iterable[Any], found: Iterable[Any]) -> Iterator[str]:
    """Compare as multisets and say what lacks and what is too much, the first few of each."""
    expected, there = Counter(wanted), Counter(found)
    for word, extra in (("lacks", expected - there), ("too much", there - expected)):
        if extra:
            yield f"{what}: {sum(extra.values())} {word}, e.g. {list(extra)[:_SHOWN]}"
