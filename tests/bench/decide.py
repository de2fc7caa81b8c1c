"""Parse and decide, one core: messages a second, by kind; beside the standard library's header parser alone.

python -m tests.bench.decide
"""

import sys
from collections.abc import Callable
from email.parser import BytesHeaderParser
from functools import partial
from pathlib import Path

from handlers import decision, message
from handlers.decision import FirstReceipt, Policy
from tests.bench.measure import Row, in_turn, machine, per_second, save, table, telling
from tests.harness.mails import APPLE, NEW, TEMPLATE, address, mail

_COUNT = 2_000
_RECEIVED = "".join(f"Received: from mx{hop}.example.net by mx.example.com; Sat, 28 Nov 2026 10:00:0{hop} +0000\r\n"
                    for hop in range(5))  # fmt: skip
_POLICY = Policy((TEMPLATE,))
_KINDS: dict[str, Callable[[int], bytes]] = {
    "Apple's unsubscribe": lambda number: mail(address(number), f"a{number}", APPLE + _RECEIVED),
    "a person's, 2.4 KB": lambda number: mail(address(number), f"p{number}", _RECEIVED, "please unsubscribe me\r\n" * 70),
    "untagged, quoted text": lambda number: mail("news@example.com", f"u{number}", _RECEIVED, "> our offers\r\n" * 150),
}  # fmt: skip


def main() -> None:
    """Measure, print the table, and keep it as JSON."""
    rows = []
    for kind, made in _KINDS.items():
        mails = [made(number) for number in range(_COUNT)]
        with telling(f"parse and decide: {kind}"):
            ours, limit = in_turn(partial(per_second, _COUNT, partial(_decided, mails)),
                                  partial(per_second, _COUNT, partial(_split, mails)))  # fmt: skip
        rows.append(Row(f"parse + decide: {kind}", "/s", ours, target=5_000, note=""))
        rows.append(Row("… beside", "/s", ours, "header parser of the standard library", limit))
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    save(rows, Path("bench"))


def _decided(mails: list[bytes]) -> None:
    for raw in mails:
        read = message.read(raw, source="imap:default")
        decision.lookups(read, _POLICY)
        decision.decide(read, NEW, _POLICY, {FirstReceipt(read.key): 1})


def _split(mails: list[bytes]) -> None:
    parser = BytesHeaderParser()
    for raw in mails:
        parser.parsebytes(raw).items()


if __name__ == "__main__":
    main()
