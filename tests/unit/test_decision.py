"""What a letter means: the order of mail.md section 7, who is named, when it was, and when more must be fetched."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import decision
from handlers.decision import FirstReceipt, Policy, lookups, needs_more
from handlers.message import FIRST_LOOK_BYTES, MAX_LOOK_BYTES
from handlers.request import Action, DecidedMessage, Outcome, request_id
from handlers.sender_source import Kind, SenderSource, Trust
from handlers.tag import Keyring, StoredTag, Tag
from tests.unit.letters import JANE, KEYS, POLICY, TEMPLATE, decide, read, rows, tagged

FORGED = tagged(keys=Keyring((b"a master that is not active here",)))
JOHN = Tag("acme", 3, "john@example.com")
OTHER_SENDER = Tag("beta", 12, "jane@example.com")

PLAIN = "From: a@b\nTo: TAG\nSubject: unsubscribe\n"
AUTOMATIC = "From: a@b\nTo: TAG\nAuto-Submitted: auto-replied\n"
REPORT = "From: a@b\nTo: TAG\nContent-Type: multipart/report; report-type={}; boundary=b\n\n--b\n"

OUTCOMES = {
    # a valid tag: honour is the default
    "tag in To": (PLAIN, "honour"),
    "no subject, no body": ("From: a@b\nTo: TAG\n", "honour"),
    "no From": ("To: TAG\n", "honour"),
    "reply with a quote": (PLAIN + "In-Reply-To: <1@x>\nReferences: <1@x>\n\nplease\n> old\n", "honour"),
    "marked as spam": (PLAIN + "X-Spam-Flag: YES\nPrecedence: junk\n", "honour"),
    "through a list": (PLAIN + "List-Id: <x>\nPrecedence: bulk\n", "honour"),
    "asks not to be answered": (PLAIN + "X-Auto-Response-Suppress: All\n", "honour"),
    "encrypted": (PLAIN + "Content-Type: application/pkcs7-mime\n\nxx", "honour"),
    "not automatic": (PLAIN + "Auto-Submitted: no\n", "honour"),
    "forwarded as an attachment": (PLAIN + "Content-Type: multipart/mixed; boundary=b\n\n--b\n"
                                   "Content-Type: message/rfc822\n\nFrom: MAILER-DAEMON@x\n--b--\n", "honour"),
    # automatic marks
    "Apple's header": (AUTOMATIC + "X-Apple-Unsubscribe: true\nSubject: Weekly news\n", "honour"),
    "Apple's line in any subject": (
        AUTOMATIC + "Subject: Nouvelles\n\nApple Mail sent this email to unsubscribe from the message \u201cx\u201d.", "honour"),
    "Apple's header under a reply": (AUTOMATIC + "X-Apple-Unsubscribe: true\nIn-Reply-To: <1@x>\n", "honour"),
    "bare mark, no subject": (AUTOMATIC, "honour"),
    "bare mark, empty subject": (AUTOMATIC + "Subject: \n", "honour"),
    "bare mark, our subject": (AUTOMATIC + "Subject: unsubscribe\n", "honour"),
    "bare mark, our subject encoded": (AUTOMATIC + "Subject: =?utf-8?b?VW5zdWJzY3JpYmU=?=\n", "honour"),
    "bare mark, a foreign word": (AUTOMATIC + "Subject: Désabonnement\n", "honour"),
    "bare mark, another subject": (AUTOMATIC + "Subject: Your ticket 17\n", "ignore:auto-reply"),
    "mark and a reply": (AUTOMATIC + "Subject: unsubscribe\nIn-Reply-To: <1@x>\n", "ignore:auto-reply"),
    "mark with a comment": (AUTOMATIC.replace("replied", "replied (vacation)") + "References: <1@x>\n", "ignore:auto-reply"),
    "vacation": (AUTOMATIC + "Subject: Automatic reply: News\nIn-Reply-To: <1@x>\n", "ignore:auto-reply"),
    "vacation by its subject alone": (PLAIN.replace("unsub", "Out of office: unsub"), "ignore:auto-reply"),
    "vacation by its headers alone": (PLAIN + "X-Autoreply: yes\nPrecedence: bulk\n", "ignore:auto-reply"),
    "vacation by a value alone": (PLAIN + "X-Precedence: auto_reply\n", "ignore:auto-reply"),
    # machines, with a valid tag
    "bounce": (REPORT.format("delivery-status") + "Content-Type: message/delivery-status\n\n", "ignore:bounce"),
    "bounce without a report type": (
        PLAIN + "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n", "ignore:bounce"),
    "null sender": ("Return-Path: <>\n" + PLAIN, "ignore:bounce"),
    "mail robot": (PLAIN.replace("a@b", "MAILER-DAEMON@mx (Mail Delivery System)"), "ignore:bounce"),
    "postmaster": (PLAIN.replace("a@b", "Postmaster <postmaster@b>"), "ignore:bounce"),
    "author without an address": (PLAIN.replace("a@b", '"Mail System" <>'), "ignore:bounce"),
    "failed recipients": (PLAIN + "X-Failed-Recipients: x@y\n", "ignore:bounce"),
    "bounce that claims to be Apple's": ("Return-Path: <>\nX-Apple-Unsubscribe: true\n" + PLAIN, "ignore:bounce"),
    "read receipt": (REPORT.format("disposition-notification"), "ignore:mdn"),
    "complaint": (REPORT.format("feedback-report") + "Content-Type: message/feedback-report\n\n", "complaint"),
    "calendar reply": (PLAIN + "Content-Type: text/calendar; method=REPLY\n\n", "ignore:calendar"),
    "journal": (PLAIN + "X-MS-Journal-Report:\n", "ignore:journal"),
    "DMARC summary": (PLAIN.replace("unsub", "Report domain: example.com unsub"), "ignore:report"),
    # no valid tag
    "forged tag": (f"From: a@b\nTo: {FORGED}\nSubject: unsubscribe\n", "quarantine:bad-tag"),
    "forged tag, damaged": (f"From: a@b\nTo: <mailto:{FORGED.replace('+', '%2B')}?subject=x>\n", "quarantine:bad-tag"),
    "our address with garbage": ("From: a@b\nTo: u+garbage@unsub.example.com\n", "quarantine:bad-tag"),
    "unknown stored tag": (f"From: a@b\nTo: {tagged(opaque=True)}\n", "quarantine:bad-tag"),
    "forged tag in a bounce": (f"Return-Path: <>\nFrom: a@b\nTo: {FORGED}\n", "ignore:bounce"),
    "forged tag from a vacation": (f"From: a@b\nTo: {FORGED}\nAuto-Submitted: auto-replied\n", "quarantine:bad-tag"),
    "no tag": ("From: a@b\nTo: unsub@example.com\nSubject: unsubscribe\n", "quarantine:no-tag"),
    "tag in the subject only": ("From: a@b\nTo: c@d\nSubject: TAG\n", "quarantine:no-tag"),
    "tag in the body only": ("From: a@b\nTo: c@d\n\nTAG\n", "quarantine:no-tag"),
    "tag in a quoted header only": ("From: a@b\nTo: c@d\nList-Unsubscribe: <mailto:TAG>\n", "quarantine:no-tag"),
    "no tag, automatic": ("From: a@b\nTo: c@d\nAuto-Submitted: auto-generated\n", "ignore:auto-reply"),
    "no tag, vacation": ("From: a@b\nTo: c@d\nSubject: Automatische Antwort: Post\n", "ignore:auto-reply"),
    "no tag, a reply": ("From: a@b\nTo: c@d\nIn-Reply-To: <1@x>\n", "quarantine:no-tag"),
    "only a sender": ("From: a@b\n", "quarantine:no-tag"),
    "nobody": ("Subject: unsubscribe\n", "quarantine:malformed"),
    "nothing": ("", "quarantine:malformed"),
    "noise": ("\0\x01\x02\n\n", "quarantine:malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome(name):
    text, expected = OUTCOMES[name]

    decided = decide(text + "\n")

    assert expected == decided.outcome.value
    assert (expected == "honour") == bool(decided.requests)


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_wire_format_loses_nothing_and_no_fact_holds_an_address(name):
    decided = decide(OUTCOMES[name][0] + "\n")

    assert replace(decided, suggestion=None) == DecidedMessage.from_wire(decided.as_wire())
    assert "@" not in decided.reason + "".join(decided.evidence.values())


# -- whom


def _named(decided):
    return [Tag(each.sender, each.group, each.recipient) for each in decided.requests]


def test_a_request_says_what_its_tag_says_and_where_it_came_from():
    [request] = decide(PLAIN + "\n", received_ms=1_700_000_000_000).requests

    key = read(PLAIN + "\n").key
    assert request.action is Action.UNSUBSCRIBE
    assert Tag(request.sender, request.group, request.recipient) == JANE
    assert (1_700_000_000_000, "test", key, "recipient", "") == (
        request.at_ms, request.source, request.evidence, request.actor, request.seen_version,
    )  # fmt: skip


@pytest.mark.parametrize("author", ["jane@example.com", "mallory@example.net", "", "john@example.com (Jane)"])
def test_the_author_is_irrelevant(author):
    assert _named(decide(f"From: {author}\nReply-To: {author}\nSender: {author}\nTo: TAG\n\n")) == [JANE]


def test_every_tag_that_verifies_is_used_once_in_order():
    text = f"To: {tagged(JOHN)}, c@d, {tagged().upper()}, {FORGED}\nCc: TAG, {tagged(OTHER_SENDER)}\nFrom: a@b\n\n"

    assert _named(decide(text)) == [JOHN, JANE, OTHER_SENDER]


def test_an_envelope_recipient_that_verifies_stands_alone():
    text = f"X-Original-To: {tagged(JOHN)}\nTo: {tagged(JOHN)}\nFrom: a@b\n\n"

    assert _named(decide(text, envelope_to=f"<{tagged()}>")) == [JANE]


@pytest.mark.parametrize("envelope_to", [FORGED, "inbox@unsub.example.com", "", None])
def test_an_envelope_recipient_that_does_not_verify_leaves_the_headers(envelope_to):
    text = f"To: TAG, {tagged(JOHN)}\nFrom: a@b\n\n"

    assert _named(decide(text, envelope_to=envelope_to)) == [JANE, JOHN]


def test_a_header_that_claims_to_be_the_envelope_stands_not_alone():
    assert _named(decide(f"X-Original-To: TAG\nTo: {tagged(JOHN)}\nFrom: a@b\n\n")) == [JANE, JOHN]


@pytest.mark.parametrize("policy", [POLICY, Policy()])
def test_a_foreign_tag_of_our_shape_is_bad_with_and_without_a_template(policy):
    decided = decision.decide(read(f"From: a@b\nTo: {FORGED}\n\n"), KEYS, policy, {})

    assert Outcome.BAD_TAG is decided.outcome


def test_without_a_template_garbage_is_no_tag():
    decided = decision.decide(read("From: a@b\nTo: u+garbage@unsub.example.com\n\n"), KEYS, Policy(), {})

    assert Outcome.NO_TAG is decided.outcome


# -- stored tags


def test_a_stored_tag_counts_once_its_row_is_found():
    text = f"From: a@b\nTo: {tagged(opaque=True)}\n\n"

    assert _named(decide(text, rows(JANE))) == [JANE]
    assert _named(decide(text)) == []


def test_a_damaged_address_of_our_template_is_a_bad_tag_and_not_left_alone():
    decided = decide("From: a@b\nTo: u%2Bgarbage@unsub.example.com\n")

    assert Outcome.BAD_TAG is decided.outcome


def test_a_stored_row_of_somebody_else_is_a_bad_tag():
    [ref] = rows(JANE)

    decided = decide(f"From: a@b\nTo: {tagged(opaque=True)}\n\n", {ref: JOHN})
    assert Outcome.BAD_TAG is decided.outcome


def test_lookups_ask_for_the_first_receipt_and_for_each_stored_tag_once():
    [jane], [john] = rows(JANE), rows(JOHN)
    again = tagged(opaque=True).replace("unsub.", "mx.unsub.")
    letter = read(f"To: {tagged(opaque=True)}, TAG, {again}\nCc: {tagged(JOHN, opaque=True)}\nX-Original-To: TAG\n\n")

    assert [FirstReceipt(letter.key), jane, john] == lookups(letter, POLICY)


# -- when


@pytest.mark.parametrize(
    ("received_ms", "first_ms", "expected"),
    [(2000, None, 2000), (None, 3000, 3000), (2000, 3000, 2000), (3000, 2000, 2000), (None, None, 0)],
)
def test_event_time_is_the_earlier_of_source_and_first_receipt(received_ms, first_ms, expected):
    key = FirstReceipt(read(PLAIN + "\n").key)

    decided = decide(PLAIN + "\n", {} if first_ms is None else {key: first_ms}, received_ms=received_ms)

    assert (expected, [expected]) == (decided.received_ms, [each.at_ms for each in decided.requests])


def test_the_authors_date_is_never_the_event_time():
    text = PLAIN + "Date: Tue, 1 Jan 2030 00:00:00 +0000\nReceived: by us; Tue, 1 Jan 2030 00:00:00 +0000\n\n"

    assert decide(text, received_ms=5).received_ms == 5


def test_the_first_receipt_of_another_message_is_not_used():
    assert decide(PLAIN + "\n", {FirstReceipt("0" * 64): 1}, received_ms=9).received_ms == 9


# -- ids


def test_a_repeat_has_the_same_ids():
    one = decide(f"From: a@b\nTo: TAG, {tagged(JOHN)}\n\nx", received_ms=1)
    again = decide(f"From: a@b\nTo: TAG, {tagged(JOHN)}\n\nx", received_ms=2)

    assert [each.id for each in one.requests] == [each.id for each in again.requests]
    assert len({each.id for each in one.requests}) == 2


def test_another_message_has_other_ids():
    one, other = (decide(PLAIN + f"Message-ID: <{number}@x>\n\n").requests[0] for number in (1, 2))

    assert one.id != other.id


def test_the_id_of_a_damaged_tag_is_that_of_the_tag():
    [one] = decide(PLAIN + "\n").requests
    [other] = decide(PLAIN.replace("TAG", tagged().replace("+", "%2B")) + "\n").requests

    parts = (one.sender, one.group, one.recipient, one.action)
    assert parts == (other.sender, other.group, other.recipient, other.action)
    assert request_id(one.evidence, *parts) == one.id


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["0", "a", "acme", "x@d"]), min_size=4, max_size=4))
def test_a_request_id_tells_its_parts_apart(parts):
    nonce, sender, group, recipient = parts

    one = request_id(nonce, sender, 1, recipient, Action.UNSUBSCRIBE)
    assert len(one) == 32
    assert one != request_id(nonce, sender, 11, recipient, Action.UNSUBSCRIBE)
    assert one != request_id(nonce, sender, 1, recipient, Action.RESUBSCRIBE)
    assert one != request_id(nonce + sender, "", 1, recipient, Action.UNSUBSCRIBE)
    assert one != request_id(nonce, sender + "x", 1, recipient + group, Action.UNSUBSCRIBE)


# -- evidence


def test_evidence_tells_where_the_tag_stood_its_repair_and_its_key():
    rotated = Keyring((b"a newer master than that of Jane", *KEYS.masters))
    letter = read(f"From: a@b\nCc: {tagged().replace('+', '%2B')}\n\n")

    evidence = decision.decide(letter, rotated, POLICY, {}).evidence

    assert {
        "size_bytes": str(len(letter.raw)),
        "tag_in": "cc",
        "repair": "unwrap+percent",
        "key_index": "1",
    } == evidence


def test_evidence_names_apples_client_and_the_automatic_keyword_without_its_parameters():
    text = AUTOMATIC.replace("replied", 'replied; owner-email="jane@example.com"') + "X-Apple-Unsubscribe: true\n\n"

    evidence = decide(text).evidence

    assert (evidence["client"], evidence["auto_submitted"]) == ("apple-mail", "auto-replied")


# -- the first look


def _first_look(text, size_bytes=50_000):
    return read(text + "\n\n" + "x" * 5000, size_bytes=size_bytes)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (PLAIN + "Message-ID: <1@x>", False),
        (PLAIN, False),
        (f"To: {tagged(opaque=True)}\nMessage-ID: <1@x>", False),
        ("To: c@d\nMessage-ID: <1@x>", True),
        (f"To: {FORGED}\nMessage-ID: <1@x>", True),
        (PLAIN + "Message-ID: <1@x>\nContent-Type: multipart/report; boundary=b", True),
        (PLAIN + "Message-ID: <1@x>\nContent-Type: multipart/mixed; boundary=b\n\nContent-Type: message/delivery-status", True),
        (PLAIN + "Message-ID: <1@x>\nX-MS-Journal-Report:", True),
    ],
)  # fmt: skip
def test_more_is_needed_where_the_cut_could_hide_something(text, more):
    assert more == needs_more(_first_look(text), KEYS)


@pytest.mark.parametrize("text", [PLAIN, PLAIN + "Message-ID: <1@x>\n"])
def test_more_is_needed_where_the_header_was_cut(text):
    assert needs_more(read(text + "X-Padding: x", size_bytes=50_000), KEYS)


def test_more_is_needed_where_the_key_is_not_final():
    assert needs_more(read(PLAIN + "\nshort", size_bytes=50_000), KEYS)


@pytest.mark.parametrize("text", ["", "To: c@d\n\n", "Content-Type: multipart/report\n\n", "To: c@d"])
def test_a_whole_message_needs_no_more(text):
    assert not needs_more(read(text), KEYS)


def test_no_more_than_the_longest_look_is_asked_for():
    assert not needs_more(read(b"X: " + b"x" * MAX_LOOK_BYTES, size_bytes=2_000_000), KEYS)


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_first_look_that_suffices_decides_like_the_whole(name):
    text = OUTCOMES[name][0].rstrip("\n") + "\nX-Padding: " + "x" * 6000 + "\n\n" + "y" * 30_000
    whole = read(text)
    first = read(whole.raw[:FIRST_LOOK_BYTES], size_bytes=whole.size_bytes)

    if not needs_more(first, KEYS):
        assert decision.decide(whole, KEYS, POLICY, {}) == decision.decide(first, KEYS, POLICY, {})


PARTS = {"ignore:bounce": "message/delivery-status", "ignore:mdn": "message/disposition-notification",
         "complaint": "message/feedback-report", "ignore:calendar": "text/calendar; method=REPLY"}  # fmt: skip


@pytest.mark.parametrize("outcome", PARTS)
@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/alternative", "multipart/report"])
def test_no_report_passes_as_a_request_because_of_the_cut(outcome, kind):
    start = PLAIN + f"Message-ID: <1@x>\nContent-Type: {kind}; boundary=b\n\n--b\n\n" + "long text\n" * 1000
    whole = read(start + f"--b\nContent-Type: {PARTS[outcome]}\n\n--b--\n")
    first = read(whole.raw[:FIRST_LOOK_BYTES], size_bytes=whole.size_bytes)

    assert needs_more(first, KEYS)
    assert outcome == decision.decide(whole, KEYS, POLICY, {}).outcome.value


@pytest.mark.parametrize("outcome", list(Outcome))
def test_quarantined_outcomes_are_those_that_say_so(outcome):
    assert outcome.quarantined == outcome.value.startswith("quarantine:")


def test_found_rows_of_other_types_do_no_harm():
    assert _named(decide(PLAIN + "\n", {StoredTag("x" * 26): JOHN, FirstReceipt("y"): 3})) == [JANE]


def test_the_template_of_the_tests_holds_its_own_addresses():
    assert TEMPLATE.holds(tagged())


@pytest.mark.parametrize(
    ("author", "outcome"),
    [
        ("jane@postmaster.co.uk", "honour"),
        ('"Postmaster, Bremen district" <jane@example.com>', "honour"),
        ("MAILER-DAEMON (Mail Delivery System)", "ignore:bounce"),
        ("Mail Delivery <postmaster@example.com>", "ignore:bounce"),
        ("<MAILER-DAEMON@example.com>", "ignore:bounce"),
    ],
)
def test_only_a_local_part_makes_a_robot(author, outcome):
    assert outcome == decide(f"From: {author}\nTo: TAG\nSubject: unsubscribe\n\n").outcome.value


def test_a_blank_return_path_is_no_null_sender():
    assert decide("Return-Path:\nFrom: a@b\nTo: TAG\n\n").outcome is Outcome.HONOUR


# -- what a reviewer proved

ATTACHED = (
    PLAIN + "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
    "X-HmXmrOriginalRecipient: x@hotmail.com\nFrom: a@b\n\n--b--\n"
)
FIXED = SenderSource("acme", Kind.ADDRESS, "leave@example.com", trust=Trust.DMARC, authserv_id="mx.example.com")
PROVED = "Authentication-Results: mx.example.com; dmarc=pass header.from=example.net\n"
TO_FIXED = "From: jane@example.net\nTo: leave@example.com\n"


def _decided(text, **policy):
    letter = read(text)
    return decision.decide(letter, KEYS, replace(POLICY, **policy), {})


def test_a_complaint_attached_to_a_request_does_not_stop_the_request():
    assert _decided(ATTACHED).outcome is Outcome.HONOUR


def test_a_persons_address_may_contain_the_word_postmaster():
    assert _decided(PLAIN.replace("a@b", "jane.postmaster@b")).outcome is Outcome.HONOUR


def test_an_administrators_own_unsubscribe_is_shown_to_a_person():
    decided = _decided(PLAIN.replace("a@b", "postmaster@b") + "X-Apple-Unsubscribe: true\n")

    assert (decided.outcome, decided.evidence["review"][:7]) == (Outcome.BOUNCE, "a robot")


@pytest.mark.parametrize(
    ("text", "outcome", "review"),
    [
        (PROVED + TO_FIXED + "Subject: unsubscribe\n\n", "honour", False),
        (PROVED + TO_FIXED + "Subject: hello\n\nWhen does it arrive?\n", "honour", True),
        (PROVED + TO_FIXED + "List-Id: <x>\nSubject: news\n\n", "quarantine:no-tag", False),
        (PROVED + TO_FIXED + "Auto-Submitted: auto-replied\nSubject: unsubscribe\n\n", "ignore:auto-reply", False),
        (PROVED + TO_FIXED + "Auto-Submitted: auto-replied\nX-Apple-Unsubscribe: true\n\n", "honour", False),
        (TO_FIXED + "Subject: unsubscribe\n\n", "quarantine:no-tag", False),
        # What our server saw as one field is none of its results.
        (f"X-Note: hi\r{PROVED}{TO_FIXED}Subject: unsubscribe\n\n", "quarantine:no-tag", False),
    ],
)
def test_a_fixed_address_counts_for_whom_our_own_server_proved(text, outcome, review):
    decided = _decided(text, sources=(FIXED,))

    assert (decided.outcome.value, "review" in decided.evidence) == (outcome, review)
    assert [each.recipient for each in decided.requests] == (["jane@example.net"] if outcome == "honour" else [])


def test_mail_to_a_senders_address_is_never_mail_that_is_not_ours():
    decided = _decided("To: leave@example.com\nSubject: hello\n\n", sources=(FIXED,))

    assert decided.evidence["foreign"] == "not proved: fixed address: From does not name exactly one author"


def test_a_complaint_counts_globally_only_from_whom_the_installation_trusts():
    arf = (
        "From: fbl@isp.example\nTo: abuse@example.com\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n"
        "--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\n\n--b\nContent-Type: message/rfc822\n\n"
        "List-Unsubscribe: <mailto:TAG>\nFrom: news@acme.example\n\nhi\n--b--\n"
    )
    proved = "Authentication-Results: mx.example.com; dmarc=pass header.from=isp.example\n" + arf
    trusted = {"authserv_id": "mx.example.com", "reporters": frozenset({"isp.example"})}

    groups = [
        [each.group for each in _decided(text, **policy).requests]
        for text, policy in [
            (arf, {}),
            (arf, trusted),
            (proved, trusted),
            (arf, {"feedback_loops": frozenset({"test"})}),
        ]
    ]

    assert groups == [[12], [12], [12, 0], [12, 0]]
    assert {each.action for each in _decided(proved, **trusted).requests} == {Action.COMPLAINT}
    assert "review" in _decided(arf).evidence
