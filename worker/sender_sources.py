"""How recipients were told to unsubscribe before unsubd: each sender's addresses and patterns, and their tables.

A table is imported as a stream, a thousand rows at a time; doing it again is safe, a later row replaces an earlier one.
Tokens and known recipients are kept as digests; a token's row has to spell its recipient. Tables belong to the sender:
they go with the sender's last source.

| key                      | type | holds                                                    | lives    |
|--------------------------|------|----------------------------------------------------------|----------|
| `unsubd:sender-sources`  | HASH | source id -> JSON {sender, kind, pattern, group, …}      | until removed |
| `unsubd:foreign:SENDER`  | HASH | digest of a foreign token -> JSON {group, recipient}     | with the sender's last source |
| `unsubd:known:SENDER`    | SET  | digests of the sender's known recipients                 | with the sender's last source |
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, cast

import redis

from handlers.address import canonical
from handlers.errors import AddressError, QueueUnavailable, Rejected, UnknownAccount
from handlers.foreign import ForeignLookup, ForeignToken, KnownRecipient, token_digest
from handlers.sender_source import SenderSource
from handlers.tag import Tag
from worker.accounts import Accounts
from worker.points import point
from worker.server import Writer, away_as

_SOURCES, _FOREIGN, _KNOWN = "unsubd:sender-sources", "unsubd:foreign:", "unsubd:known:"
_CHUNK = 1000
_MIN_TOKEN, _MAX_TOKEN = 8, 200  # whoever guesses a token is believed: a running number is none
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. Shape: refused: how many lines; problems: of the first ten, without their values."""

    stored: int
    refused: int
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    stored: int = 0
    refused: int = 0
    problems: tuple[str, ...] = ()

    def refuse(self, line: int, why: str) -> None:
        self.refused += 1
        if self.refused <= _SHOWN:
            self.problems += (f"line {line}: {why}",)


Progress = Callable[[int], None]
_Row = tuple[str, int, str]  # token, group, recipient


class SenderSources:
    """The sender sources of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away; a change also when too few replicas confirm it.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)
        self._accounts = Accounts(client)

    def add(self, source: SenderSource) -> SenderSource:
        """Keep *source*; the same pattern of the same sender and kind is replaced.

        Errors:  Rejected        a pattern, trust or authserv-id that does not fit the kind.    permanent
                 UnknownAccount  no such sender, or no such group of it.    permanent
        """
        source = self.checked(source)
        self._confirmed(lambda to: to.hset(_SOURCES, source.id, json.dumps(source.as_wire())))
        return source

    def checked(self, source: SenderSource) -> SenderSource:
        """Return *source* as `add` would keep it; errors as there."""
        self._accounts.group(source.sender, source.group)
        return source.checked()

    def sources(self, sender: str | None = None) -> list[SenderSource]:
        """Return the sources of *sender*, or all, by sender and pattern."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            rows = cast(dict[bytes, bytes], self._redis.hgetall(_SOURCES))
        every = (SenderSource.from_wire(json.loads(row)) for row in rows.values())
        return sorted(
            (each for each in every if sender in (None, each.sender)), key=lambda each: (each.sender, each.pattern)
        )

    def by_id(self, sender: str, source_id: str) -> SenderSource:
        """Errors: UnknownAccount  *sender* has no source of that id.    permanent"""
        for source in self.sources(sender):
            if source.id == source_id:
                return source
        raise UnknownAccount(
            f"source {source_id[:20]!r}: sender {sender[:20]!r} has none of that id, see: unsubd sender source list {sender[:20]}"
        )

    def remove(self, sender: str, source_id: str) -> bool:
        """Remove a source; return whether it was the sender's last, so that its tables went too.

        Errors:  UnknownAccount  as `by_id`.    permanent
        """
        self.by_id(sender, source_id)
        last = len(self.sources(sender)) == 1
        self._confirmed(lambda to: to.hdel(_SOURCES, source_id))
        if last:
            self._confirmed(lambda to: to.unlink(_FOREIGN + sender, _KNOWN + sender))
        return last

    def import_tokens(
        self, sender: str, group: int, lines: Iterable[str], progress: Progress = lambda _: None
    ) -> Imported:
        """Store a table of opaque tokens: CSV lines `token,recipient[,group]`, a header line allowed.

        Shape:   group: of the lines that name none. progress: called with the count of stored rows, every 1,000.
        Errors:  UnknownAccount  no such sender.    permanent. A bad line is refused alone.
        Why:     software folds case, so a token is also found in lower case, unless two tokens would then be one.
        """
        groups = {0, group, *(each.id for each in self._accounts.groups(self._accounts.sender(sender).id))}
        tally = _Tally()
        rows = _token_rows(lines, group, groups, tally)
        while chunk := list(islice(rows, _CHUNK)):
            self._store_tokens(_FOREIGN + sender, chunk)
            tally.stored += len(chunk)
            progress(tally.stored)
        return Imported(tally.stored, tally.refused, tally.problems)

    def _store_tokens(self, key: str, rows: Sequence[_Row]) -> None:
        folded = list(dict.fromkeys(token_digest(token.lower()) for token, _, _ in rows))
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            stored = cast(list[bytes | None], self._redis.hmget(key, folded))
            owners = {digest: json.loads(row)["of"] for digest, row in zip(folded, stored, strict=True) if row}
        self._confirmed(lambda to: to.hset(key, mapping=_entries(rows, owners)))

    def import_known(self, sender: str, lines: Iterable[str], progress: Progress = lambda _: None) -> Imported:
        """Store known recipients, one address a line; empty lines are skipped. Errors: as `import_tokens`."""
        self._accounts.sender(sender)
        tally = _Tally()
        recipients = _known_recipients(lines, tally)
        while chunk := list(islice(recipients, _CHUNK)):
            self._store_known(_KNOWN + sender, [_digest(recipient) for recipient in chunk])
            tally.stored += len(chunk)
            progress(tally.stored)
        return Imported(tally.stored, tally.refused, tally.problems)

    def _store_known(self, key: str, digests: Sequence[str]) -> None:
        self._confirmed(lambda to: to.sadd(key, *digests))

    def forget(self, recipient: str, names: Callable[[str, str], str]) -> int:
        """Put *recipient*'s forgotten name into every imported token, and take it out of the known; return how many.

        Shape:   recipient: canonical. names: `ForgottenNames`. Reads every imported token.
        Repeat:  safe.
        """
        return sum(self._forget_of(sender.id, recipient, names) for sender in self._accounts.senders())

    def _forget_of(self, sender: str, recipient: str, names: Callable[[str, str], str]) -> int:
        known, foreign, named = _KNOWN + sender, _FOREIGN + sender, {}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            for digest, content in self._redis.hscan_iter(foreign, count=_CHUNK):
                row = json.loads(content)
                if row.get("recipient") == recipient:
                    named[digest] = json.dumps({**row, "recipient": names(sender, recipient)})
        with point("forget.tokens"):
            count = int(self._confirmed(lambda to: to.srem(known, _digest(recipient))))
        if named:
            with point("forget.tokens"):
                self._confirmed(lambda to: to.hset(foreign, mapping=named))
        return count + len(named)

    def lookup(self, keys: Iterable[ForeignLookup]) -> dict[ForeignLookup, Tag | int]:
        """Return what is known of *keys*, in one pipeline: a token's `Tag`, 1 for a known recipient; the rest is absent."""
        wanted = list(keys)
        if not wanted:
            return {}
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self._redis.pipeline(transaction=False)
            for key in wanted:
                if isinstance(key, ForeignToken):
                    pipeline.hget(_FOREIGN + key.sender, key.digest)
                else:
                    pipeline.sismember(_KNOWN + key.sender, _digest(key.recipient))
            replies: list[Any] = pipeline.execute()
        found = {key: _found(key, reply) for key, reply in zip(wanted, replies, strict=True)}
        return {key: value for key, value in found.items() if value}


def _found(key: ForeignLookup, reply: Any) -> Tag | int | None:
    if isinstance(key, KnownRecipient):
        return int(reply)
    row = json.loads(reply) if reply else {}
    return Tag(key.sender, row["group"], row["recipient"]) if row.get("recipient") else None


def _entries(rows: Sequence[_Row], owners: dict[str, str]) -> dict[Any, Any]:
    """A row under its token, and one under the token in lower case, without a recipient where two tokens claim it."""
    entries: dict[Any, Any] = {}
    for token, group, recipient in rows:
        digest, folded = token_digest(token), token_digest(token.lower())
        row = {"group": group, "recipient": recipient, "of": digest[:8]}
        entries[digest] = json.dumps(row)
        if owners.setdefault(folded, digest[:8]) != digest[:8]:
            owners[folded] = ""
            row = {"of": ""}
        entries[folded] = json.dumps(row)
    return entries


def _token_rows(lines: Iterable[str], group: int, groups: set[int], tally: _Tally) -> Iterator[_Row]:
    reader = csv.reader(lines)
    while True:
        try:
            fields = next(reader)
            if [field.strip().lower() for field in fields[:2]] == ["token", "recipient"] and reader.line_num == 1:
                continue
            if fields:
                yield _token_row(fields, group, groups)
        except StopIteration:
            return
        except AddressError:
            tally.refuse(reader.line_num, "expected an address in the second column")
        except (Rejected, csv.Error) as error:
            tally.refuse(reader.line_num, str(error))


def _token_row(fields: list[str], group: int, groups: set[int]) -> _Row:
    if not 2 <= len(fields) <= 3:
        raise Rejected(f"{len(fields)} columns, expected token,recipient[,group]")
    token, recipient, named = fields[0].strip(), canonical(fields[1]), "".join(fields[2:]).strip()
    if not _MIN_TOKEN <= len(token) <= _MAX_TOKEN or any(
        letter.isspace() or not letter.isprintable() for letter in token
    ):
        raise Rejected(f"token of {len(token)} characters, expected {_MIN_TOKEN} to {_MAX_TOKEN} without spaces")
    if named and not (named.isascii() and named.isdigit() and int(named[:11]) in groups):
        raise Rejected(
            f"group of {len(named)} characters, expected the id of one of the sender's, see: unsubd group list"
        )
    return token, int(named) if named else group, recipient


def _known_recipients(lines: Iterable[str], tally: _Tally) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield canonical(line)
        except AddressError:
            tally.refuse(number, "expected one address")


def _digest(recipient: str) -> str:
    return sha256(recipient.encode()).hexdigest()[:32]
