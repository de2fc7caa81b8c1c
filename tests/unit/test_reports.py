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
    ("text", "client"),
    [
        ("X-Apple-Unsubscribe: true\n\n", "apple-mail"),
        ("X-Apple-Unsubscribe: TRUE\n\n", "apple-mail"),
        ("X-Apple-Unsubscribe: false\n\n", ""),
        ("X: y\n\nApple Mail sent this email to unsubscribe from the message “x”.", "apple-mail"),
        ("X: y\n\niOS Mail sent this email to unsubscribe from the message", "apple-mail"),
        ("X: y\n\nThis message was automatically generated by Gmail.", "gmail"),
        ("X: y\n\nThis is an unsubscribe request sent from Superhuman on behalf of a@b", "superhuman"),
        ("Content-Type: text/html\n\n<p>\nZero sent this email to unsubscribe from this list.</p>", "zero"),
        ("X: y\n\nPlease, unsubscribe me", "proton"),
        ("X: y\n\n> Apple Mail sent this email to unsubscribe", ""),
        ("X: y\n\nI did not write: This message was automatically generated by Gmail", ""),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nPlease, unsubscribe me\n--b--\n", "proton"),
    ],
)
def test_a_client_is_known_by_its_mark(text, client):
    assert client == reports.client_mark(read(text))


def test_a_body_that_mail_parser_refuses_has_no_mark(monkeypatch):
    def refuse(raw):
        raise RecursionError

    monkeypatch.setattr("mailparser.parse_from_bytes", refuse)

    assert reports.client_mark(read("X: y\n\nPlease, unsubscribe me")) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("auto-replied", "auto-replied"), ("Auto-Generated (failure)", "auto-generated"), ("auto-replied;x=y", "auto-replied"),
        ("no", "no"), ("No; x", "no"), ("", ""), ("(comment) no", ""), ('auto-notified; owner-email="a@b"', "auto-notified"),
    ],
)  # fmt: skip
def test_the_automatic_keyword_stands_without_comments_and_parameters(value, expected):
    letter = read(f"Auto-Submitted: {value}\n\n")

    assert expected == reports.auto_keyword(letter)
    assert (expected not in ("", "no")) == reports.auto_submitted(letter)


@pytest.mark.parametrize(
    "subject",
    [
        "Automatic reply: News", "automatic response", "Auto reply", "AUTO-REPLY", "Autoreply: x", "auto response",
        "Out of office", "Out of the office: x", "Abwesenheitsnotiz", "Abwesenheitsmeldung: x", "Automatische Antwort: x",
        "Réponse automatique : x", "=?utf-8?q?R=C3=A9ponse_automatique=C2=A0=3A?= x", "Respuesta automática: x",
        "Risposta automatica: x", "Fuori sede", "Automatisch antwoord: x", "Autosvar: x", "Automatisk svar: x",
        "Frånvaro: x", "Automaattinen vastaus: x", "自动回复: x", "自動応答: x", "Автоответ: x", "  out of office",
    ],
)  # fmt: skip
def test_a_vacation_is_known_by_its_subject(subject):
    letter = read(f"Subject: {subject}\n\n")

    assert (reports.second_auto_sign(letter), reports.is_automatic(letter)) == ("subject", True)


@pytest.mark.parametrize(
    "subject", ["Re: Out of office", "unsubscribe", "Automatic", "My auto reply", "", "About office"]
)
def test_other_subjects_are_no_vacation(subject):
    assert reports.second_auto_sign(read(f"Subject: {subject}\n\n")) == ""


@pytest.mark.parametrize(
    "line",
    [
        "X-Autoreply: yes", "X-Autorespond: x", "X-AutoReply-From: a@b", "X-Mail-Autoreply: x", "X-FC-MachineGenerated: true",
        "Precedence: auto_reply", "X-Precedence: auto_reply", "Preference: auto_reply", "X-Autogenerated: Reply",
        "X-POST-MessageClass: 9; Autoresponder", "Delivered-To: a@b\nDelivered-To: Autoresponder",
    ],
)  # fmt: skip
def test_a_vacation_is_known_by_its_headers(line):
    letter = read(line + "\nIn-Reply-To: <1@x>\n\n")

    assert line.rpartition("\n")[2].partition(":")[0].lower() == reports.second_auto_sign(letter)
    assert reports.is_automatic(letter)


@pytest.mark.parametrize("line", ["In-Reply-To: <1@x>", "References: <1@x>"])
def test_a_reply_is_a_second_sign_but_no_automatic_mark(line):
    letter = read(line + "\n\n")

    assert (line.partition(":")[0].lower(), False) == (reports.second_auto_sign(letter), reports.is_automatic(letter))


@pytest.mark.parametrize("line", ["Precedence: bulk", "Precedence: list", "X-Auto-Response-Suppress: All", "X: y"])
def test_bulk_marks_and_instructions_are_no_sign(line):
    assert reports.second_auto_sign(read(line + "\n\n")) == ""


@pytest.mark.parametrize(
    "subject",
    [
        "", " ", "unsubscribe", "UNSUBSCRIBE!", "Un-subscribe", "Unsubscribe request", "[unsubscribe]", "remove me", "STOP",
        "opt-out", "Opt out", "désabonnement", "Désinscription", "Abmelden", "abbestellen", "cancelar suscripción",
        "disiscrizione", "uitschrijven", "отписаться", "退订", "配信停止", "=?utf-8?b?VW5zdWJzY3JpYmU=?=",
    ],
)  # fmt: skip
def test_a_subject_asks(subject):
    assert reports.says_unsubscribe(read(f"Subject: {subject}\n\n"))


@pytest.mark.parametrize(
    "subject", ["Weekly news", "Fwd: unsubscribe", "how do I unsubscribe", "unsubscribed", "!" * 999]
)
def test_a_subject_does_not_ask(subject):
    assert not reports.says_unsubscribe(read(f"Subject: {subject}\n\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Content-Type: multipart/report", True), ("X-MS-Journal-Report:", True), ("Content-Type: multipart/mixed", True),
        ("Content-Type: multipart/alternative; boundary=b", True), ("Content-Type: text/plain", False),
        ("From: a@b", False), ("Content-Type: multipart/report; report-type=unknown", True),
    ],
)  # fmt: skip
def test_what_may_hold_a_report_should_be_seen_whole(text, expected):
    assert expected == reports.looks_like_report(read(text + "\n\n"))
