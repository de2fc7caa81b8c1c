"""Hypothesis strategies: well-formed mail of every kind, and what damage makes of it."""

import random

from hypothesis import strategies as st

from handlers.tag import Tag, mint
from tests.fuzz import damage
from tests.fuzz.run import KEYS, TEMPLATE, corpus

TAGS = [
    mint(KEYS, Tag("acme", 12, "mia.keller@example.org"), TEMPLATE, opaque=opaque).address for opaque in (False, True)
]
ADDRESSES = st.sampled_from(
    [*TAGS, "a@b.example", '"Doe, Jane" <j@d.example>', "undisclosed-recipients:;", "", "почта@пример"]
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
LEAVES = (
    "text/plain", "text/html; charset=iso-2022-jp", "text/calendar; method=REPLY", "message/delivery-status", "message/rfc822",
    "message/feedback-report", "message/disposition-notification", "application/tlsrpt+gzip", "text/rfc822-headers",
)  # fmt: skip
CONTAINERS = (
    "mixed",
    "alternative",
    "report; report-type=feedback-report",
    "report; report-type=delivery-status",
    "signed",
)
SPELLINGS = ("{}", "<{}>", "<mailto:{}?subject=x>", '"{0}" <{0}>', "=?utf-8?q?{}?=", "x, {}", "\n {}")


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Return header lines, some of them with a tag."""
    names = st.sampled_from(["To", "Cc", "Delivered-To", "X-Original-To", "Return-Path", "From", "List-Unsubscribe"])
    others = st.sampled_from(["Subject", "Message-ID", "Auto-Submitted", "Date", "Precedence", "x"])
    spelt = st.builds(str.format, st.sampled_from(SPELLINGS), ADDRESSES)
    fields = draw(st.lists(st.tuples(names, spelt) | st.tuples(others, TEXTS), max_size=8))
    return "".join(f"{name}: {value}\n" for name, value in fields).encode("utf-8", "surrogatepass")


@st.composite
def parts(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Return a part, header and body; a multipart in one of three cases, embedded mail included."""
    if depth > 3 or draw(st.integers(0, 2)):
        kind = draw(st.sampled_from(LEAVES))
        body = draw(headers()) + b"\n" + draw(TEXTS).encode() if "/rfc822" in kind else draw(TEXTS).encode()
        return f"Content-Type: {kind}\n\n".encode() + body
    children = draw(st.lists(parts(depth + 1), max_size=4))
    head = f"Content-Type: multipart/{draw(st.sampled_from(CONTAINERS))}; boundary=b{depth}\n\n".encode()
    return head + b"".join(b"--b%d\n" % depth + child + b"\n" for child in children) + b"--b%d--\n" % depth


@st.composite
def damaged_mails(draw: st.DrawFn) -> bytes:
    """Return a mail of our own making, or one of the corpus, whole or damaged."""
    raw = draw(st.builds(bytes.__add__, headers(), parts()) | st.sampled_from(corpus()))
    chance = random.Random(draw(st.integers(0, 2**32)))
    for harm in draw(st.lists(st.sampled_from(damage.SMALL), max_size=3)):
        raw = harm(chance, raw[: damage.MAX_SMALL], [raw])
    return raw
