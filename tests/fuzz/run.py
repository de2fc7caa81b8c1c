"""Put damaged mail through everything that decides: `make fuzz`, or `python -m tests.fuzz.run --inputs N --seed S`.

Each input goes through `message.read`, reports, complaints, `decision.lookups`, `decide` and `needs_more`, and one in
twenty through `read_text`. An exception, or more than `BOUND_S` of CPU time, is a finding: saved below `--out`, exit 1.
Inputs depend on the seed and their number alone, so a finding can be made again.
"""

import argparse
import hashlib
import json
import logging
import multiprocessing
import random
import resource
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from handlers import automatic, complaints, decision, message
from handlers.decision import Policy
from handlers.request import DecidedMessage
from handlers.sender_source import Kind, SenderSource, Trust
from handlers.tag import AddressTemplate, Keyring, Tag, mint
from tests.fuzz import damage

ROOT = Path(__file__).parents[2]
KEYS = Keyring((b"unsubd test messages: not a secret", b"an older master of the fuzzing run"))
TEMPLATE = AddressTemplate.parse("u+{tag}@unsub.example.com")
SOURCES = (
    SenderSource(
        "acme", Kind.VERP, "list-unsubscribe-{user}={host}@unsub.example.com", 0, Trust.DMARC, "mx.example.com"
    ),
    SenderSource("acme", Kind.ADDRESS, "unsubscribes@unsub.example.com", 0, Trust.DMARC, "mx.example.com"),
    SenderSource("acme", Kind.CIVICRM, "u.{job}.{queue}.{token}@unsub.example.com"),
    SenderSource("acme", Kind.SUBJECT, "unsubscribe {token}"),
)
POLICY = Policy(
    (TEMPLATE,), SOURCES, ("acme", "other"), "mx.example.com", frozenset({"fbl.example.com"}), frozenset({"fuzz"})
)
BOUND_S = 2.0
LOOK_AGAIN_S = 0.05
BOUND_MB = 100  # above what the process holds before the first input
CHUNK = 2000
ENVELOPES = (None, None, None, "", "<>", "a@b", "u+x@unsub.example.com", "\udc80@d", "\ud800@d", "x" * 5000 + "@d")


@dataclass
class Figures:
    """What a chunk, and at last the run, came to."""

    inputs: int = 0
    octets: int = 0
    worst_s: float = 0.0
    worst_input: str = ""
    memory_mb: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Take the figures of *other* in."""
        self.inputs += other.inputs
        self.octets += other.octets
        self.memory_mb = max(self.memory_mb, other.memory_mb)
        self.outcomes += other.outcomes
        self.findings += other.findings
        if other.worst_s > self.worst_s:
            self.worst_s, self.worst_input = other.worst_s, other.worst_input


def corpus() -> list[bytes]:
    """Return our own messages, and the shared samples where they are."""
    shared = ROOT.parent / "shared" / "samples" / "mail"
    paths = [*sorted((ROOT / "tests" / "messages").glob("*.eml")), *sorted(shared.rglob("*.eml"))]
    tag = mint(KEYS, Tag("acme", 12, "mia.keller@example.org"), TEMPLATE).tag.encode()
    return [path.read_bytes().replace(b"unsub+TAG@", b"u+" + tag + b"@") for path in paths]


def made(seed: int, number: int, seeds: list[bytes]) -> bytes:
    """Return input *number*: 99 in 100 small, the others bombs and deep nests."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.random()
    if kind < 0.99:
        return damage.small(chance, seeds)
    return damage.bomb(chance, seeds) if kind < 0.9965 else damage.nested(chance, seeds)


def exercise(raw: bytes, number: int) -> str:
    """Do with *raw* what production does, from the first look to the decision; return the outcome."""
    envelope = ENVELOPES[number % len(ENVELOPES)]
    size = len(raw) + (number % 3 == 0) * 10_000
    inbound = message.read(raw, source="fuzz", envelope_to=envelope, envelope_from=envelope, size_bytes=size)
    complaints.complaint(inbound)
    automatic.client(inbound)
    automatic.auto_signs(inbound)
    asked = decision.lookups(inbound, POLICY)
    found: dict[decision.Lookup, Tag | int] = {
        key: 17 if isinstance(key, decision.FirstReceipt) else Tag("acme", 12, "a@b.c") for key in asked
    }
    decision.needs_more(inbound, KEYS)
    if number % 20 == 0:
        message.read_text(inbound)
        automatic.client_mark(inbound)
    decided = decision.decide(inbound, KEYS, POLICY, found)
    return DecidedMessage.from_wire(json.loads(json.dumps(decided.as_wire()))).outcome.value


def work(seed: int, first: int, count: int, out: Path) -> Figures:
    """Do one chunk in this process."""
    logging.disable()  # mail-parser warns of every type that it does not know
    seeds, figures = _seeds(), Figures()
    for number in range(first, first + count):
        raw = made(seed, number, seeds)
        started = time.perf_counter()
        try:
            figures.outcomes[exercise(raw, number)] += 1
        except Exception:  # noqa: BLE001 - any exception at all is the finding
            figures.findings.append(_saved(out, raw, f"input {number}: {traceback.format_exc()}"))
            continue
        took = time.perf_counter() - started
        if took > LOOK_AGAIN_S:
            took = _cpu_seconds(raw, number)
        if took > BOUND_S:
            figures.findings.append(_saved(out, raw, f"input {number}: {took:.2f} s"))
        if took > figures.worst_s:
            figures.worst_s, figures.worst_input = took, f"number {number}, {len(raw)} octets"
        figures.octets += len(raw)
    figures.inputs = count
    figures.memory_mb = _peak_mb() - _held_mb[0]
    return figures


def _cpu_seconds(raw: bytes, number: int) -> float:
    # A busy machine makes everything slow, and asking for CPU time costs more than most inputs: only then, and again.
    started = time.process_time()
    exercise(raw, number)
    return time.process_time() - started


_kept: list[list[bytes]] = []
_held_mb = [0.0]


def _seeds() -> list[bytes]:
    if not _kept:
        _kept.append(corpus())
        _held_mb[0] = _peak_mb()
    return _kept[0]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _saved(out: Path, raw: bytes, why: str) -> str:
    out.mkdir(parents=True, exist_ok=True)
    path = out / hashlib.sha256(raw).hexdigest()[:16]
    path.with_suffix(".eml").write_bytes(raw)
    path.with_suffix(".txt").write_text(why, "utf-8")
    return f"{path.with_suffix('.eml')}: {why.strip().splitlines()[-1]}"


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("/tmp/unsubd-fuzz"))
    asked = parser.parse_args()
    started, figures = time.monotonic(), Figures()
    chunks = [(asked.seed, at, min(CHUNK, asked.inputs - at), asked.out) for at in range(0, asked.inputs, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for done, result in enumerate(pool.imap_unordered(_work, chunks), 1):
            figures.add(result)
            if done % 10 == 0 or done == len(chunks):
                _print(figures, time.monotonic() - started)
    print("outcomes:", ", ".join(f"{name} {count}" for name, count in figures.outcomes.most_common()))
    print("worst:", figures.worst_input)
    print(*figures.findings[:20], sep="\n")
    if figures.memory_mb > BOUND_MB:
        print(f"memory: {figures.memory_mb:.0f} MB, expected at most {BOUND_MB}")
    return 1 if figures.findings or figures.memory_mb > BOUND_MB else 0


def _work(chunk: tuple[int, int, int, Path]) -> Figures:
    return work(*chunk)


def _print(figures: Figures, took_s: float) -> None:
    print(
        f"{figures.inputs:,} inputs, {figures.octets / 1e6:,.0f} MB, findings {len(figures.findings)},"
        f" worst {figures.worst_s:.2f} s, {figures.memory_mb:.0f} MB, {took_s:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
