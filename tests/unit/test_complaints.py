"""Complaints: who sent them back, about whom, and where the embedded original names our tag."""

import base64
import json
import quopri
import time
from pathlib import Path

import pytest

from handlers import message, tag
from handlers.complaints import complaint
from handlers.errors import Rejected
from handlers.tag import Keyring, Tag
from tests.unit.letters import JANE, KEYS, read, tagged

FOLDER = Path(__file__).parents[1] / "messages"
CASES = [
    (path.name.removesuffix(".expected.json"), expected)
    for path in sorted(FOLDER.glob("*.expected.json"))
    if "action" in (expected := json.loads(path.read_text("utf-8")))
]
ORIGINAL = "From: news@acme.example\nSubject: Spring\nList-Unsubscribe: <mailto:TAG>\n\nSpring is here\n"


def _arf(original=ORIGINAL, feedback="abuse", part="message/rfc822", cte="7bit", more=""):
    return (
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\ntext\n"
        f"--b\nContent-Type: message/feedback-report\n\nVersion: 1\nFeedback-Type: {feedback}\n{more}\n"
        f"--b\nContent-Type: {part}\nContent-Transfer-Encoding: {cte}\n\n{original}\n--b--\n"
    )


def _found(text):
    """The tags that verify among the candidates, as (header, tag)."""
    found = []
    for candidate in complaint(read(text)).candidates:
        try:
            found.append((candidate.where, tag.read(candidate.address, KEYS).tag))
        except Rejected:
            continue
    return found


@pytest.mark.parametrize(("name", "expected"), CASES)
def test_each_case_names_its_recipient_in_the_embedded_original(name, expected):
    found = complaint(message.read((FOLDER / f"{name}.eml").read_bytes(), source="test"))
    keys = Keyring((b"unsubd test messages: not a secret",))

    assert (found.kind == "opt-out") == (expected["action"] == "unsubscribe")
    ours = [each.address for each in found.candidates if tag.is_shaped(each.address)]
    assert Tag(*expected["requests"][0]) == tag.read(ours[0], keys).tag


@pytest.mark.parametrize(
    ("feedback", "kind"),
    [
        ("abuse", "abuse"), ("Fraud", "fraud"), ("opt-out", "opt-out"), ("opt-out-list", "opt-out"), ("other", "other"),
        ("", "other"), ("abuse; x", "abuse"), ("!", "other"), ("miscategorized", "miscategorized"),
    ],
)  # fmt: skip
def test_the_kind_is_the_feedback_type(feedback, kind):
    assert kind == complaint(read(_arf(feedback=feedback))).kind


@pytest.mark.parametrize("feedback", ["not-spam", "auth-failure", "virus", "NOT-SPAM"])
def test_reports_that_say_something_else_are_no_complaint(feedback):
    assert complaint(read(_arf(feedback=feedback))) is None


@pytest.mark.parametrize(
    "text",
    [
        "To: TAG\n\n" + ORIGINAL, "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n" + ORIGINAL,
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n" + ORIGINAL,
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\n",
        "From: stan@hotmail.com\nSubject: complaint about message\n\n", "X-HmXmrOriginalRecipient: a@b\n\n",
    ],
)  # fmt: skip
def test_other_mail_is_no_complaint(text):
    assert complaint(read(text)) is None


def test_candidates_come_in_the_order_of_trust():
    header = "List-Unsubscribe: <mailto:l@d>, <https://h/u/t>, <mailto:m@d?subject=s>\n\n"
    original = f"Return-Path: <r@d>\nX-Unsubd-Tag: <x@d>\n{header}"
    found = [(each.where, each.address) for each in complaint(read(_arf(original))).candidates]

    assert found == [
        ("list-unsubscribe", "l@d"), ("list-unsubscribe", "m@d"), ("list-unsubscribe", "t@h"), ("x-unsubd-tag", "x@d"),
        ("return-path", "r@d"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "original",
    [
        "List-Unsubscribe: <mailto:TAG>", "List-Unsubscribe: <https://a/x>,\n\t<mailto:o@d>,\n <mailto:TAG?subject=x>",
        "List-Unsubscribe: mailto : TAG", "List-Unsubscribe: <https://d/u/LOCAL>", "List-Unsubscribe: <http://d/x/p/LOCAL?a=b#c>",
        "List-Unsubscribe: <https://d/u/QUOTED>", "List-Unsubscribe: =?utf-8?b?WORD?=", "List-Unsubscribe: <mailto:o@d,TAG>",
        "X-Unsubd-Tag: LOCAL", "X-Unsubd-Tag: TAG", "Return-Path: <TAG>", "garbage\nList-Unsubscribe: <mailto:TAG>",
        "list-unsubscribe:\n <mailto:o@d>\nLIST-UNSUBSCRIBE:\n <mailto:TAG>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["message/rfc822", "text/rfc822-headers", "message/rfc822-headers"])
def test_the_tag_is_found_however_the_original_spells_it(original, part):
    local_part = tagged().partition("@")[0]
    word = base64.b64encode(f"<mailto:{tagged()}>".encode()).decode()
    quoted = local_part.replace("+", "%2B").replace("-", "%2D")
    text = original.replace("LOCAL", local_part[2:]).replace("QUOTED", quoted).replace("WORD", word)

    assert [named for _, named in _found(_arf(text + "\n\nx", part=part))] == [JANE]


@pytest.mark.parametrize("where", ["To: TAG", "Subject: TAG", "Received: for <TAG>", "Reply-To: TAG", "X: y\n\nTAG"])
def test_nothing_else_in_the_original_names_anybody(where):
    assert _found(_arf(where + "\n\n")) == []


def test_the_tag_of_the_report_itself_names_nobody():
    assert _found(f"To: TAG\nList-Unsubscribe: <mailto:TAG>\n{_arf('From: a@b')}") == []


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_an_original_may_be_transfer_encoded(encoding):
    encode = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}[encoding]
    text = encode(ORIGINAL.replace("TAG", tagged()).encode()).decode()

    assert _found(_arf(text, cte=encoding.upper())) == [("list-unsubscribe", JANE)]


@pytest.mark.parametrize("before", [1, 40, 200])
def test_the_header_may_lie_far_below(before):
    assert _found(_arf(f"X-Padding: {'x' * 990}\n" * before + ORIGINAL)) == [("list-unsubscribe", JANE)]


@pytest.mark.parametrize("line_end", ["\r\n", "\r", "\r\r\n"])
def test_line_ends_do_not_hide_the_original(line_end):
    assert _found(_arf().replace("\n", line_end)) == [("list-unsubscribe", JANE)]


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ("Original-Rcpt-To: <jane@example.com>\n", "jane@example.com"),
        ("Original-Rcpt-To: a@b\nOriginal-Rcpt-To: c@d\n", "a@b"),
        ("Original-Rcpt-To: rfc822;a@b\n", "a@b"), ("Redacted-Address: redacted\n", ""), ("Original-Rcpt-To: redacted\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_reported_recipient_is_a_hint(more, hint):
    assert hint == complaint(read(_arf(more=more))).hint


def _jmrp(original):
    return f"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n{original}\n--b--\n"


def test_hotmails_complaint_is_known_by_the_recipient_in_the_embedded_mail():
    found = complaint(read(_jmrp("X-HmXmrOriginalRecipient: jane@example.com\n" + ORIGINAL)))

    assert (found.kind, found.hint, len(found.candidates)) == ("abuse", "jane@example.com", 1)


def test_hotmails_old_form_is_the_bare_mail():
    found = complaint(read("Return-Path: <Staff@Hotmail.com>\n" + ORIGINAL))

    assert (found.kind, found.hint) == ("abuse", "")
    assert tag.read(found.candidates[0].address, KEYS).tag == JANE


def test_hotmails_complaint_without_an_original_names_nobody():
    found = complaint(read("From: staff@hotmail.com\nSubject: complaint about message from 192.0.2.1\n\n"))

    assert (found.kind, found.candidates, found.hint) == ("abuse", (), "")


HOSTILE = {
    "addresses": "List-Unsubscribe: " + "<mailto:a@b>," * 20_000, "links": "List-Unsubscribe: " + "https://a/u/b," * 18_000,
    "slashes": "List-Unsubscribe: https://a" + "/u" * 125_000, "schemes": "List-Unsubscribe: " + "mailto" * 42_000,
    "spaces": "List-Unsubscribe: mailto" + " " * 250_000, "headers": "Return-Path: <a@b>\n" * 13_000,
    "words": "List-Unsubscribe: " + "=?utf-8?q?" * 25_000, "brackets": "Return-Path: " + "<" * 250_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_original_takes_bounded_time(name):
    started = time.process_time()
    complaint(read(_arf(HOSTILE[name])))

    assert time.process_time() - started < 1
