"""What machines send, recognised by structure, and what only looks like it."""

import pytest

from handlers import reports
from handlers.request import Outcome
from tests.unit.letters import read

MIXED = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nhello\n--b\n"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/report; report-type=delivery-status", Outcome.BOUNCE),
        ('MULTIPART/Report; boundary="b"; Report-Type="Delivery-Status"', Outcome.BOUNCE),
        ("multipart/report;\n\treport-type=delivery-status", Outcome.BOUNCE),
        ("multipart/report; report-type=disposition-notification", Outcome.MDN),
        ("multipart/report; report-type=feedback-report", Outcome.COMPLAINT),
        ("multipart/report; report-type=tlsrpt", Outcome.REPORT),
        ("message/delivery-status", Outcome.BOUNCE),
        ("message/feedback-report", Outcome.COMPLAINT),
        ("multipart/report; report-type=x", None),
        ("multipart/report", None),
        ("multipart/mixed", None),
        ("message/rfc822", None),
        ("text/plain; report-type=delivery-status", None),
        ("report-type=delivery-status", None),
        ("", None),
        ("multipart/report; report-type*=utf-8''delivery-status; x=\"", None),
    ],
)
def test_a_report_is_known_by_its_content_type(content_type, expected):
    assert expected is reports.report(read(f"Content-Type: {content_type}\n\n"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("message/delivery-status", Outcome.BOUNCE),
        ("MESSAGE/Disposition-Notification; charset=x", Outcome.MDN),
        ("message/feedback-report", Outcome.COMPLAINT),
        ("message/rfc822", None),
        ("text/rfc822-headers", None),
        ("text/plain", None),
    ],
)
def test_a_report_without_a_type_is_known_by_its_part(kind, expected):
    assert expected is reports.report(read(f"{MIXED}Content-Type: {kind}\n\nx\n--b--\n"))


def test_what_lies_inside_a_forwarded_mail_makes_no_report():
    forwarded = f"{MIXED}Content-Type: message/rfc822\n\nContent-Type: message/delivery-status\n\n--b--\n"

    assert reports.report(read(forwarded)) is None


def test_a_part_quoted_in_text_makes_no_report():
    line = "Content-Type: message/delivery-status\n\n"
    quoted = f"{MIXED}\nsee:\n\n{line}--other\n{line}--b--\n"

    assert reports.report(read(quoted)) is None


@pytest.mark.parametrize("kind", ["message/global-delivery-status", "message/delivery-status"])
def test_a_report_inside_another_multipart_is_known(kind):
    inner = f"Content-Type: multipart/report; boundary=i\n\n--i\nContent-Type: {kind}\n\nx\n--i--\n"

    assert Outcome.BOUNCE is reports.report(read(f"{MIXED}{inner}--b--\n"))


def test_text_that_quotes_a_report_is_none():
    assert reports.report(read("Content-Type: text/plain\n\nContent-Type: message/delivery-status\n")) is None


@pytest.mark.parametrize(
    ("feedback", "expected"),
    [
        ("abuse", Outcome.COMPLAINT), ("fraud", Outcome.COMPLAINT), ("ABUSE", Outcome.COMPLAINT),
        ("auth-failure", Outcome.REPORT), ("Not-Spam", Outcome.REPORT), ("virus", Outcome.REPORT),
        ("virus-ish", Outcome.COMPLAINT), ("", Outcome.COMPLAINT),
    ],
)  # fmt: skip
def test_only_complaints_among_feedback_reports_are_complaints(feedback, expected):
    text = "Content-Type: multipart/report; report-type=feedback-report\n\n--b\n"
    part = f"Content-Type: message/feedback-report\n\nVersion: 1\nFeedback-Type: {feedback}\nX: y\n"

    assert expected is reports.report(read(text + part + "--b\n\nFeedback-Type: other\n" * bool(feedback)))


def test_hotmails_complaint_is_known_by_its_author_and_subject():
    text = "From: staff@Hotmail.com\nSubject: complaint about message from 192.0.2.1\n\n"

    assert Outcome.COMPLAINT is reports.report(read(text))
    assert reports.report(read(text.replace("staff", "stan"))) is None
    assert reports.report(read(text.replace("complaint", "question"))) is None


@pytest.mark.parametrize("value", ["", " ", "yes"])
def test_a_journal_is_known_by_a_header_that_may_be_empty(value):
    assert Outcome.JOURNAL is reports.report(read(f"X-MS-Journal-Report:{value}\n\n"))


@pytest.mark.parametrize(
    "text",
    [
        "Return-Path: <>\nFrom: a@b", "From: MAILER-DAEMON", "From: Mail <mailer-daemon@b>", "From: PostMaster@b",
        "From: a@b\nX-Failed-Recipients: c@d", 'From: "Mail System" <>', "From: <>",
    ],
)  # fmt: skip
def test_a_bounce_is_known_by_any_of_its_signs(text):
    assert reports.is_bounce(read(text + "\n\n"))


@pytest.mark.parametrize(
    "text",
    ["From: a@b", "From: post_master@b", "From: mdaemon@b", "Return-Path: <a@b>\nFrom: a@b", "To: mailer-daemon@b", ""],
)
def test_other_senders_do_not_bounce(text):
    assert not reports.is_bounce(read(text + "\n\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Content-Type: text/calendar; method=REPLY\n\n", True),
        ('Content-Type: text/calendar; charset=utf-8;\n\tMETHOD="reply"\n\n', True),
        ("Content-Type: text/calendar\n\nBEGIN:VCALENDAR\nMETHOD:REPLY\n", True),
        ("Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\nmethod:reply\r\n", True),
        (MIXED + "Content-Type: text/calendar; method=REPLY\n\n", True),
        (MIXED + "Content-Type: text/calendar\n\nMETHOD:REPLY\n", True),
        ("Content-Type: text/calendar; method=COUNTER\n\n", True),
        ("Content-Type: text/calendar\nContent-Transfer-Encoding: base64\n\nTUVUSE9EOlJFUExZDQo=\n", True),
        (MIXED + "\nContent-Type: text/calendar; method=REPLY\n\n", False),
        ("Content-Type: text/calendar; method=REQUEST\n\nMETHOD:REQUEST\n", False),
        ("Content-Type: text/calendar\n\nMETHOD:REPLYING\n", False),
        ("Content-Type: text/plain\n\nMETHOD:REPLY\n", False),
        ("Content-Type: text/plain; method=reply\n\n", False),
        ("Content-Type: text/calendars; method=reply\n\n", False),
    ],
)
def test_a_calendar_reply_has_the_method_as_a_parameter_or_as_a_line(text, expected):
    assert expected == reports.is_calendar_reply(read(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Content-Type: multipart/report", True), ("X-MS-Journal-Report:", True), ("Content-Type: multipart/mixed", True),
        ("Content-Type: multipart/alternative; boundary=b", True), ("Content-Type: text/plain", False),
        ("From: a@b", False), ("Content-Type: multipart/report; report-type=unknown", True),
        ("Content-Type: text/calendar", True), ("Return-Path: <staff@hotmail.com>", True),
    ],
)  # fmt: skip
def test_what_may_hold_a_report_should_be_seen_whole(text, expected):
    assert expected == reports.looks_like_report(read(text + "\n\n"))


@pytest.mark.parametrize(
    "text",
    [
        "TLS-Report-Domain: acme.example\n\n", "Subject: Report Domain: acme.example Submitter: x\n\n",
        "Content-Type: application/tlsrpt+gzip\n\n", MIXED + "Content-Type: application/tlsrpt+json\n\n{}\n--b--\n",
        'Content-Type: application/zip; name="x.example!y.example!1772409600!1772495999.zip"\n\n',
        MIXED + "Content-Type: application/gzip;\n name=x.example!y.example!1772409600!1772495999!1.xml.gz\n\nx\n--b--\n",
    ],
)  # fmt: skip
def test_an_aggregate_report_is_known(text):
    assert Outcome.REPORT is reports.report(read(text))


@pytest.mark.parametrize(
    "text",
    ["Subject: Re: Report Domain: x\n\n", "Content-Type: application/zip; name=holiday!.zip\n\n", "X: tlsrpt\n\n"],
)
def test_other_files_are_no_aggregate_report(text):
    assert reports.report(read(text)) is None


def test_a_ping_is_known_by_the_message_id_that_amazon_ses_gives_it():
    assert Outcome.PING is reports.report(read("Message-ID: <AMAZON_SES_SETUP_NOTIFICATION>\n\n"))
    assert reports.report(read("Subject: AMAZON_SES_SETUP_NOTIFICATION\n\n")) is None
