"""Mailgun: the signature over timestamp and token, and forms of every shape."""

import hmac
from hashlib import sha256
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import PayloadInvalid, Rejected, SignatureInvalid
from handlers.providers import form, mailgun

NOW_S = 1_795_428_000
KEY = "0123456789abcdef-signing-key"
TOKEN = "5a1c0e7f3b9d2468ace013579bdf02468ace13579bdf024680"
TYPE = {"content-type": ["application/x-www-form-urlencoded"]}


def _signature(timestamp, token=TOKEN, key=KEY):
    return hmac.new(key.encode(), f"{timestamp}{token}".encode(), sha256).hexdigest()


def _signed(at=NOW_S, **changed):
    fields = {"recipient": "a@b", "body-mime": "x", "timestamp": at, "token": TOKEN}
    return urlencode(fields | {"signature": _signature(at)} | changed, doseq=True).encode()


def test_the_signature_gives_the_signed_time():
    assert mailgun.verify(TYPE, _signed(), [KEY], NOW_S + 5) == NOW_S * 1000


def test_keys_may_rotate():
    assert mailgun.verify(TYPE, _signed(), ["basic:a:b", "older", "é", KEY], NOW_S) == NOW_S * 1000


@pytest.mark.parametrize(
    "proofs", [[], ["other"], [KEY + "x"], [""], [f"basic:{KEY}"], [f"bearer:{KEY}"], ["é", "\udce9"]]
)
def test_no_other_key_signs(proofs):
    with pytest.raises(SignatureInvalid):
        mailgun.verify(TYPE, _signed(), proofs, NOW_S)


def test_an_empty_key_signs_nothing():
    with pytest.raises(SignatureInvalid):
        mailgun.verify(TYPE, _signed(signature=_signature(NOW_S, key="")), ["", "basic:a:b"], NOW_S)


@pytest.mark.parametrize(
    "changed",
    [
        {"signature": _signature(NOW_S)[:-1]}, {"signature": _signature(NOW_S).upper()}, {"signature": "é"},
        {"signature": ""}, {"signature": _signature(NOW_S) + "\n"}, {"token": TOKEN[:-1] + "1"}, {"token": ""},
        {"token": TOKEN + "é"}, {"timestamp": NOW_S + 1}, {"timestamp": ""}, {"signature": [_signature(NOW_S), "x"]},
    ],
)  # fmt: skip
def test_a_changed_triple_is_refused(changed):
    with pytest.raises(SignatureInvalid):
        mailgun.verify(TYPE, _signed(**changed), [KEY], NOW_S)


@pytest.mark.parametrize("position", range(len(_signed()) - 140, len(_signed()), 7))
def test_one_changed_octet_of_the_triple_is_refused(position):
    body = bytearray(_signed())
    body[position] ^= 0x02

    with pytest.raises(Rejected):
        mailgun.verify(TYPE, bytes(body), [KEY], NOW_S)


@pytest.mark.parametrize("name", ["timestamp", "token", "signature"])
def test_of_a_repeated_field_the_last_counts_because_headers_of_the_mail_come_first(name):
    assert mailgun.verify(TYPE, urlencode({name: "x"}).encode() + b"&" + _signed(), [KEY], NOW_S)


@pytest.mark.parametrize("name", ["timestamp", "token", "signature"])
@pytest.mark.parametrize("other", ["{}[]", "{}[0]", " {}", "{}\0", ""])
def test_a_field_of_another_name_is_no_proof(name, other):
    body = _signed().replace(f"{name}=".encode(), urlencode({other.format(name): ""}).encode())

    with pytest.raises(SignatureInvalid):
        mailgun.verify(TYPE, body, [KEY], NOW_S)


@pytest.mark.parametrize(("age_s", "fresh"), [(43200, True), (-43200, True), (43201, False), (-43201, False)])
def test_half_a_day_is_forgiven_for_eight_hours_of_retries(age_s, fresh):
    if fresh:
        assert mailgun.verify(TYPE, _signed(), [KEY], NOW_S + age_s) == NOW_S * 1000
    else:
        with pytest.raises(SignatureInvalid, match="away"):
            mailgun.verify(TYPE, _signed(), [KEY], NOW_S + age_s)


@pytest.mark.parametrize("timestamp", ["not-a-number", "1e9", "-1", "1_795_428_000", "١٧", "9" * 5000, "1795428000.0"])
def test_a_signed_timestamp_that_is_no_number_is_refused(timestamp):
    with pytest.raises(SignatureInvalid, match="expected Unix seconds"):
        mailgun.verify(TYPE, _signed(timestamp), [KEY], NOW_S)


def test_basic_authentication_needs_no_signature():
    headers = TYPE | {"authorization": ["Basic dTpw"]}

    assert mailgun.verify(headers, b"recipient=a@b", [KEY, "basic:u:p"], NOW_S) is None


@pytest.mark.parametrize("authorization", [["Basic dTpw", "Basic dTpw"], ["Basic dTpx"], ["Basic é"]])
def test_a_wrong_authorization_is_refused(authorization):
    with pytest.raises(SignatureInvalid):
        mailgun.verify(TYPE | {"authorization": authorization}, b"recipient=a@b", ["basic:u:p"], NOW_S)


@pytest.mark.parametrize("body", [b'{"event-data": {}}', b"[]", b'\xef\xbb\xbf {"a": 1}'])
@pytest.mark.parametrize("headers", [{}, {"content-type": ["application/json; charset=utf-8"]}])
def test_an_event_webhook_is_given_up_whoever_signed_it(headers, body):
    for call in (lambda: mailgun.verify(headers, body, [KEY], NOW_S), lambda: mailgun.read(headers, body)):
        with pytest.raises(PayloadInvalid, match="event webhooks"):
            call()


# -- urlencoded forms


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.characters(max_codepoint=255), min_size=1, max_size=5), st.binary(max_size=60)), max_size=6
    )
)
def test_an_urlencoded_form_keeps_every_octet(pairs):
    body = urlencode([(name.encode("latin-1"), value) for name, value in pairs]).encode()

    assert pairs == form.read_form({}, body)


@pytest.mark.parametrize("start", range(5))
def test_an_escape_across_a_piece_is_not_cut_in_two(start):
    value = b"x" * (form._UNQUOTED_AT_ONCE - start) + b"\xff%\xe9" * 50_000

    assert form.read_form({}, urlencode({"a": value}).encode()) == [("a", value)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []), (b"&&", []), (b"a", [("a", b"")]), (b"a=", [("a", b"")]), (b"=b", [("", b"b")]), (b"a=b=c", [("a", b"b=c")]),
        (b"a=%", [("a", b"%")]), (b"a=%4", [("a", b"%4")]), (b"a=%zz+%41", [("a", b"%zz A")]), (b"a=\xff\0", [("a", b"\xff\0")]),
        (b"a=1&a=2", [("a", b"1"), ("a", b"2")]), (b"a=1;b=2", [("a", b"1;b=2")]),
    ],
)  # fmt: skip
def test_a_broken_urlencoded_form_is_read_as_far_as_it_goes(body, expected):
    assert expected == form.read_form({}, body)


def test_too_many_fields_are_given_up():
    with pytest.raises(PayloadInvalid, match="at most 500"):
        form.read_form({}, b"a=1&" * 501)


def test_raw_mode_keeps_megabytes():
    raw = b"Subject: x\r\n\r\n" + b"\xe9+%\r\n" * 300_000

    [found] = mailgun.read(TYPE, urlencode({"recipient": "a@b", "body-mime": raw}).encode())

    assert found.raw == raw
