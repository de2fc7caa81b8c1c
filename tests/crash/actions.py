"""What people and programs do by hand: lists, the archive, the console's buttons, `unsubd forget`. Ways as in `ways.py`.

Whoever acts sees that it died, and does the same again: the command, the post, the button.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

from handlers import message
from handlers.request import DecidedMessage
from handlers.tag import Tag, mint
from tests.crash.house import PLACE, House
from tests.crash.ways import Mails, Sent, Way, posted
from tests.harness.held import looks, values
from tests.harness.mails import NEW, TEMPLATE, address, mail, recipient
from tests.unit.house import decided
from worker import by_hand
from worker.batch import UnsubdJob, new_job
from worker.imports import Imports
from worker.installation import Installation
from worker.quarantine.entry import FAILED
from worker.sender_sources import SenderSources
from worker.store.archive import Archive
from worker.web.ops import trail

DAY_MS = 86_400_000


def _list_of(number: int) -> tuple[bytes, list[str]]:
    who = [recipient(number), f"second.{number}@example.com"]
    return f"email\n{who[0]}\nnobody\n{who[1]}\n".encode(), who


def _of_import(house: House, name: str, who: list[str]) -> Iterator[str]:
    with house.installation() as installation:
        found = [each for each in Imports(installation.redis).of("acme") if each.file == name]
        if sum(each.added for each in found) != 2 or not found or not all(each.done for each in found):
            yield f"imports {found}, expected two added"
        yield from (f"an import counts wrongly: {each}" for each in found if (each.rows, each.rejected) != (3, 1))
        rows = installation.store.rows([("acme", 1, each) for each in who])
        yield from ("somebody on the list is not suppressed" for row in rows if not (row and row.suppressed))


def imported(house: House, number: int) -> Sent:
    """An operator imports a list, and says it again when the command died."""
    content, who = _list_of(number)
    path, rejects = house.folder / f"list-{number}.csv", house.folder / f"list-{number}.csv.rejected.csv"
    path.write_bytes(content)

    def rest() -> list[str]:
        lines = rejects.read_text().splitlines() if rejects.exists() else []
        told = [] if [line[:7] for line in lines] == ["email,r", "nobody,"] else [f"rejected rows: {lines}"]
        return [*_of_import(house, path.name, who), *told]

    words = ("import", "acme", "1", str(path), "--actor", "anna")
    return Sent(lambda: house.command(*words) == 0, [], rest=rest, rows=2)


def posted_list(house: House, number: int) -> Sent:
    """A program posts a list until it hears 202; the web server imports it, or the next one over the same folder does."""
    content, who = _list_of(number)
    headers = {"Authorization": f"Bearer {house.api_key}"}
    place = f"/v1/imports?group=1&name=posted-{number}"

    def rest() -> list[str]:
        left = [path.name for path in (house.folder / "data" / "imports").glob("*.list")]
        return [*_of_import(house, f"posted-{number}", who), *(f"{name} is still there" for name in left)]

    # Who posts it again, because the answer was lost, may move the dates of the rows: a list without dates counts from now.
    return Sent(lambda: posted(house, place, content, headers), [], rest=rest)


def archived(house: House, number: int) -> Sent:
    """A record of long ago, which the reaper moves into the archive's files."""
    old = decided(f"{number:064x}", 1, "acme", recipient(number), received_ms=int(time.time() * 1000) - 200 * DAY_MS)
    with house.installation() as installation:
        installation.ledger.write([(old, [])])

    def rest() -> list[str]:
        with house.installation() as installation:
            copies = [line for line in Archive(installation.settings.archive).lines() if line.key == old.key]
            left = [key for key, _ in installation.ledger.records() if key == old.key]
        return [f"{len(copies)} in the archive, {len(left)} in the store"] if (len(copies), len(left)) != (1, 0) else []

    return Sent(lambda: True, [], rest=rest, rows=0)


def _resolutions(installation: Installation, key: str) -> int:
    return len(dict(installation.ledger.records()).get(key, {}).get("resolutions", []))


def _of_entry(house: House, key: str, way: str) -> Iterator[str]:
    """The entry is gone, the ledger tells once what a person made of it, and the trail names him."""
    with house.installation() as installation:
        if installation.quarantine.entries([key[:32]]):
            yield "the entry is still in quarantine"
        if (count := _resolutions(installation, key)) != 1:
            yield f"{count} resolutions, expected one"
        if (way, f"quarantine {key[:12]}") not in _trail(installation):
            yield "the audit trail does not tell of it"


def _trail(installation: Installation) -> set[tuple[str, str]]:
    return {(each["action"], each["target"]) for each in trail.actions(installation, 0, 1000)}


def resolved(house: House, number: int) -> Sent:
    """A forged mail, for which an operator names a person, by the console."""
    raw, to, _ = Mails(number).raws[1]
    mine = message.read(raw, source="relay:default", envelope_to=to)
    with house.installation() as installation:
        installation.intake.accept([mine])
    named = {"sender": "acme", "group": "1", "recipient": recipient(number), "reason": "she called"}
    return Sent(
        lambda: house.press("/ops/quarantine/settle", id=mine.key[:32], way="named", **named),
        [recipient(number)], rest=lambda: [*_of_entry(house, mine.key, "named")], rows=1,
    )  # fmt: skip


def _wish(number: int, kind: str) -> DecidedMessage:
    return decided(f"{kind}{number}".encode().hex().ljust(64, "0"), 1, "acme", recipient(number))


def replayed(house: House, number: int) -> Sent:
    """A request that failed once, replayed by the console."""
    wish = _wish(number, "replayed")
    with house.installation() as installation:
        installation.quarantine_failed(wish.as_wire(), "a test")
    return Sent(
        lambda: house.press("/ops/quarantine/settle", id=wish.key[:32], way="replay"),
        [recipient(number)], {wish.key: "honour"}, lambda: [*_of_entry(house, wish.key, "replay")],
    )  # fmt: skip


def _failed_job(installation: Installation, wish: DecidedMessage, why: str = "a test") -> UnsubdJob:
    job = new_job(installation.queue.rq, [wish.as_wire()])
    pipeline = installation.redis.pipeline(transaction=True)
    job.save(pipeline=pipeline)
    installation.queue.reaper._fail(job.id, job, why, pipeline)
    pipeline.execute()
    return job


def requeued(house: House, number: int) -> Sent:
    """A failed job that an operator tries again, by the console."""
    wish = _wish(number, "requeued")
    with house.installation() as installation:
        job = _failed_job(installation, wish)

    def rest() -> list[str]:
        with house.installation() as installation:
            left = job.id in installation.queue.rq.failed_job_registry.get_job_ids(cleanup=False)
            told = ("requeue job", job.id) in _trail(installation)
        return ["it still counts as failed"] * left + ["the audit trail does not tell of it"] * (not told)

    return Sent(lambda: house.press("/ops/queue/requeue", id=job.id), [recipient(number)], {wish.key: "honour"}, rest)


def dropped(house: House, number: int) -> Sent:
    """A failed job that an operator deletes, by the console: what it holds is in quarantine."""
    wish = _wish(number, "dropped")
    with house.installation() as installation:
        job = _failed_job(installation, wish)

    def rest() -> list[str]:
        with house.installation() as installation:
            left = bool(installation.redis.exists(job.key))
            kept = installation.quarantine.entries([wish.key[:32]]).values()
        return ["its hash is still there"] * left + ["its request is lost"] * ([e.reason for e in kept] != [FAILED])

    return Sent(lambda: house.press("/ops/queue/delete", id=job.id, confirm="1"), [], rest=rest, rows=0)


def _told(house: House, who: str) -> Callable[[], bool]:
    """Say whether his suppression has ever been heard of by everybody: only then somebody takes it back."""
    heard: list[bool] = []

    def is_told() -> bool:
        heard.extend([True] * (bool(house.events().get(who)) and who in house.doors.far.lists.get(PLACE, ())))
        return bool(heard)

    return is_told


def undone(house: House, number: int) -> Sent:
    """A tag that many used, and an operator who takes back what came of it, by the console."""
    who, at_ms = recipient(number), int(time.time() * 1000)
    mine = message.read(mail(address(number), f"undone-{number}"), source="relay:default")
    with house.installation() as installation:
        installation.intake.accept([mine])
        for network in range(5):
            installation.intake.anomalies.used(Tag("acme", 1, who), f"192.0.2.{network}", at_ms - 1000)
        keyed = installation.pseudonyms.bare(who)
        (anomaly,) = [each for each in installation.intake.anomalies.open() if each.who == keyed]
    is_told = _told(house, who)

    def acked() -> bool:
        return is_told() and house.press(f"/ops/anomalies/{anomaly.id}/undo", reason="forwarded")

    def rest() -> list[str]:
        with house.installation() as installation:
            row = installation.store.row("acme", 1, who)
            story = installation.ledger.story("acme", [keyed]).values()
            effects = Counter(each["effect"] for record in story for each in record["requests"])
            state = installation.intake.anomalies.find(anomaly.id).state
            told = ("undo anomaly", anomaly.id) in _trail(installation)
        wrong = ["he is still suppressed"] * (row is None or row.suppressed)
        wrong += [f"effects in the ledger: {dict(effects)}"] * ((effects["added"], effects["lifted"]) != (1, 1))
        wrong += ["his two events were not heard"] * (len(house.events().get(who, Counter())) != 2)
        wrong += ["the provider still has him"] * (who in house.doors.far.lists.get(PLACE, ()))
        return wrong + [f"the anomaly is {state}"] * (state != "undone") + ["the trail is silent"] * (not told)

    return Sent(acked, [], rest=rest, rows=2)


def forgotten(house: House, number: int) -> Sent:
    """An address in every place that holds one, and an operator who forgets it, again when the command died."""
    who = f"somebody.who.is.to.be.forgotten.{number}@a-rather-long-domain-name.example.com"
    rejects = house.folder / "data" / "imports" / f"{number}.rejected.csv"
    with house.installation() as installation:
        _spread(installation, who, number)
    rejects.parent.mkdir(exist_ok=True)
    rejects.write_text(f"{who},rejected\n")
    is_told = _told(house, who)

    def acked() -> bool:
        return is_told() and house.command("forget", who, "--yes") == 0

    def rest() -> list[str]:
        with house.installation() as installation:
            row = installation.store.row("acme", 1, who)
            places = [*_spelled(installation, who), *([rejects.name] if rejects.exists() else [])]
        return [f"spelled in {each}" for each in places] + ["not suppressed any more"] * (not (row and row.suppressed))

    return Sent(acked, [], rest=rest)


def forgotten_in_hand(house: House, number: int) -> Sent:
    """The same while a page has begun to record something of him, which is done when the command has ended."""
    sent, left = forgotten(house, number), list[bytes]()
    who = f"somebody.who.is.to.be.forgotten.{number}@a-rather-long-domain-name.example.com"
    row = {"at_ms": int(time.time() * 1000) + DAY_MS, "message": decided(recipient=who).as_wire()}
    with house.installation() as installation:
        installation.redis.hset("unsubd:begun", f"b{number}", json.dumps(row))

    def acked() -> bool:
        if not sent.acked():
            return False
        with house.installation() as installation:
            left.extend(values(installation.redis, b"unsubd:begun"))
            installation.redis.hdel("unsubd:begun", f"b{number}")
        return True

    def rest() -> list[str]:
        spelled = any(who.encode() in each for each in left)
        return [*sent.rest(), *["what the page has begun spells him"] * spelled]

    return Sent(acked, [], rest=rest)


def _spread(installation: Installation, who: str, number: int) -> None:
    stored = Tag("acme", 1, who)
    installation.tags.keep([(mint(NEW, stored, TEMPLATE), stored)])
    sources = SenderSources(installation.redis)
    sources.import_tokens("acme", 1, [f"token-of-{number},{who}"])
    sources.import_known("acme", [who])
    by_hand.enter(installation, by_hand.Action.UNSUBSCRIBE, "acme", 1, [who], actor="anna", reason="called")
    wish = decided(f"f{number}".encode().hex().ljust(64, "0"), 1, "acme", who)
    _failed_job(installation, wish, f"ValueError: {who}")
    about = mail("info@example.com", f"about-{number}").replace(b"someone@example.net", who.encode())
    installation.intake.accept([message.read(about, source="relay:default")])


def _spelled(installation: Installation, who: str) -> Iterator[str]:
    """Yield the keys that spell an address, of both servers."""
    for client in (installation.redis, installation.store_redis):
        for key in client.scan_iter(count=1000):
            if any(who.encode() in each for octets in [key, *values(client, key)] for each in looks(octets)):
                yield key.decode()


CONSOLE = ("ledger.refer", "store.apply", "ledger.append", "console.note")
ARCHIVE = ("archive.lease", "archive.write", "ledger.drop", "ledger.month", "archive.release")
FORGET = ("forget.rows", "forget.tags", "forget.tokens", "forget.job", "forget.file",
          "forget.journal", "forget.server")  # fmt: skip

ACTIONS = {
    "imported": Way(imported, {"import": ("store.apply", "import.reject")}),
    "posted-list": Way(posted_list, {"web": ("import.take", "import.keep", "import.end")}),
    "archived": Way(archived, {"reaper": ARCHIVE}),
    "resolved": Way(resolved, {"web": CONSOLE}),
    "replayed": Way(replayed, {"web": ("quarantine.write",)}),
    "requeued": Way(requeued, {"web": ("queue.requeue",)}),
    "dropped": Way(dropped, {"web": ("queue.drop",)}),
    "undone": Way(undone, {"web": ("store.apply", "store.ledger", "anomaly.settle")}),
    "forgotten": Way(forgotten, {"forget": FORGET}),
    "forgotten-in-hand": Way(forgotten_in_hand, {"forget": ("forget.begun",)}),
}  # fmt: skip
