"""Mutations: from a corpus of messages to inputs that nobody wrote, seeded, so that every one can be made again."""

import random
from collections.abc import Callable, Sequence

Damage = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
WORDS = (
    b"\r\n", b"\n", b"\r", b"\n\n", b"\r\n\r\n", b"\0", b"\xff", b"\xed\xa0\x80", b"--b", b"--b--", b"=?utf-8?q?", b"?=",
    b"=?utf-7?b?", b"=?punycode?q?a-b?=", b"=?iso-2022-jp?b?", b"<", b">", b"@", b'"', b"(", b",", b";", b"%40", b"%2B",
    b"mailto:", b"To: ", b"Content-Type: ", b"Content-Type: multipart/mixed; boundary=b\n\n--b\n",
    b"Auto-Submitted: auto-replied\n",
    b"Content-Type: message/rfc822\n\n", b"Content-Type: message/delivery-status\n\n", b"Feedback-Type: abuse\n", b"From \n",
    b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n", b"Return-Path: <>\n", b"text/calendar; ",
    b"Content-Type: message/feedback-report\n\n", b"Content-Transfer-Encoding: base64\n", b"METHOD:REPLY\n", b"boundary=",
    b"List-Unsubscribe: <https://x/u/", b"X-HmXmrOriginalRecipient: a@b\n", b"charset=", b"name*0*=utf-8''", b"\t", b" ",
    b"u+abbbbbbbbbbbb2-acme-12-a_b.c@unsub.example.com", b"hbbbbbbbbbbbbbbbbbbbbbbbbbb@x", b"Subject: ", b"unsubscribe", b"html",
)  # fmt: skip
MAX_SMALL = 16_384


def flip(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change single bits."""
    octets = bytearray(raw or b"x")
    for _ in range(chance.randint(1, 12)):
        octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
    return bytes(octets)


def insert(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Put words of the field anywhere."""
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(raw))
        raw = raw[:at] + chance.choice(WORDS) * chance.choice((1, 1, 1, 2, 9)) + raw[at:]
    return raw


def cut(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Take a piece away."""
    start, end = sorted((chance.randint(0, len(raw)), chance.randint(0, len(raw))))
    return raw[:start] + raw[end:] if chance.random() < 0.7 else raw[:end]


def splice(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Put one message's beginning before another's end."""
    other = chance.choice(corpus)
    return raw[: chance.randint(0, len(raw))] + other[chance.randint(0, len(other)) :]


def repeat(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Repeat a block."""
    start = chance.randint(0, len(raw))
    block = raw[start : start + chance.randint(1, 200)]
    return raw[:start] + block * chance.randint(2, 40) + raw[start:]


def shuffle_lines(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Lines in another order, or with other ends."""
    lines = raw.splitlines()
    if chance.random() < 0.5:
        chance.shuffle(lines)
    return chance.choice((b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r")).join(lines)


def embed(chance: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Make the message a part of another, at some depth."""
    for level in range(chance.randint(1, 6)):
        kind = chance.choice((b"message/rfc822", b"text/rfc822-headers", b"text/plain", b"message/feedback-report"))
        head = b"To: a@b\nContent-Type: multipart/mixed; boundary=x%d\n\n--x%d\nContent-Type: %s\n\n" % (
            level,
            level,
            kind,
        )
        raw = head + raw + b"\n--x%d--\n" % level
    return raw


SMALL: tuple[Damage, ...] = (flip, insert, insert, cut, splice, repeat, shuffle_lines, embed)


def small(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return a message with a few damages: of at most 1.5 KB in nine of ten cases, else of at most 16 KB."""
    limit = chance.choice((1500,) * 9 + (MAX_SMALL,))
    raw = chance.choice(corpus)
    for _ in range(chance.randint(1, 4)):
        raw = chance.choice(SMALL)(chance, raw[:limit], corpus)
    return raw[:limit]


def bomb(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return a message blown up: one block or one header repeated until it is 20 KB to 1 MB long."""
    size = chance.choice((20_000, 100_000, 262_144, 262_144, 1_000_000))
    raw = chance.choice(corpus)[:MAX_SMALL]
    start = chance.randint(0, len(raw))
    block = chance.choice((chance.choice(WORDS), raw[start : start + chance.randint(1, 80)], _pattern(chance))) or b"x"
    return raw[:start] + block * (size // len(block)) + raw[start:]


def _pattern(chance: random.Random) -> bytes:
    return b"".join(chance.choice(WORDS) for _ in range(chance.randint(1, 4)))


def nested(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return multiparts within multiparts, thousands deep or wide."""
    count = chance.choice((5, 25, 400, 4000))
    kind = chance.choice((b"mixed", b"report; report-type=x", b"alternative"))
    head = b"To: a@b\nContent-Type: multipart/mixed; boundary=b0\n\n"
    body = (
        b"--b%d\nContent-Type: multipart/%s; boundary=b%d\n\n" % (n, kind, n + chance.randint(0, 1))
        for n in range(count)
    )
    return head + b"".join(body) + chance.choice(corpus)[:MAX_SMALL]
