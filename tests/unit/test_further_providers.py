"""The further providers: every sample beside its expected.json, their proofs, and that nothing but `Rejected` escapes.

A sample is tests/webhooks/{provider}/NAME.form or NAME.json, posted as it is. NAME.expected.json holds content_type,
headers, and either reject (a pattern of the reason) or envelope_to and envelope_from (a list where they differ); proofs
(and now_s) where the post is signed; and what the message must say: header_to, text, raw, raw_sha256, candidates.
"""

import base64
import hmac
import json
import re
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import decision, message
from handlers.body import texts
from handlers.errors import PayloadInvalid, Rejected, SignatureInvalid
from handlers.providers import (
    brevo,
    forwardemail,
    mailersend,
    mailjet,
    mailtrap,
    mandrill,
    payload,
    resend,
    sparkpost,
)
from handlers.providers.mailtrap import Reference
from handlers.request import Outcome
from handlers.tag import Keyring

NOW_S = 1_793_520_000
FURTHER = {"mandrill": mandrill, "sparkpost": sparkpost, "mailjet": mailjet, "forwardemail": forwardemail,
           "resend": resend, "mailersend": mailersend, "brevo": brevo}  # fmt: skip
SAMPLES = sorted(
    path
    for name in FURTHER
    for path in (Path(__file__).parents[1] / "webhooks" / name).iterdir()
    if not path.name.endswith(".expected.json")
)
SIGNED = [path for path in SAMPLES if "proofs" in path.with_suffix(".expected.json").read_text("utf-8")]


def _sample(path):
    expected = json.loads(path.with_suffix(".expected.json").read_text("utf-8"))
    headers = {"content-type": [expected["content_type"]]}
    headers |= {name.lower(): [value] for name, value in expected["headers"].items()}
    return FURTHER[path.parent.name], headers, path.read_bytes(), expected


def _name(path):
    return f"{path.parent.name}/{path.stem}"


# -- samples


@pytest.mark.parametrize("path", SAMPLES, ids=_name)
def test_a_sample_gives_its_envelope_or_is_given_up(path):
    module, headers, body, expected = _sample(path)
    if "reject" in expected:
        with pytest.raises(PayloadInvalid, match=expected["reject"]):
            module.read(headers, body)
        return

    found = module.read(headers, body)

    senders = expected["envelope_from"]
    assert expected["envelope_to"] == [each.envelope_to for each in found]
    assert (senders if isinstance(senders, list) else [senders] * len(found)) == [each.envelope_from for each in found]


@pytest.mark.parametrize("path", SAMPLES, ids=_name)
def test_the_message_of_a_sample_says_what_was_posted(path):
    module, headers, body, expected = _sample(path)
    if "reject" in expected or not expected["envelope_to"]:
        return
    first = module.read(headers, body)[0]
    read = message.read(first.raw, source="x", envelope_to=first.envelope_to, envelope_from=first.envelope_from)
    candidates = [each.address for each in read.candidates]

    assert expected.get("header_to", read.value("to")) == read.value("to")
    assert expected.get("raw_sha256", sha256(first.raw).hexdigest()) == sha256(first.raw).hexdigest()
    assert expected.get("raw", first.raw.decode("utf-8", "replace")) == first.raw.decode("utf-8", "replace")
    assert expected.get("text", "") in "".join(text.content for text in texts(read))
    assert set(expected.get("candidates", [])) <= set(candidates)
    assert expected.get("candidates_exactly", candidates) == candidates
    assert expected.get("content_type_kept", "") in read.value("content-type")


@pytest.mark.parametrize("path", SIGNED, ids=_name)
def test_the_proof_of_a_sample_holds_for_it_and_for_no_other_body(path):
    module, headers, body, expected = _sample(path)
    now_s = expected.get("now_s", NOW_S)
    signed_ms = module.verify(headers, body, ["basic:other:x", "other", *expected["proofs"]], now_s)

    assert signed_ms == (int(headers["svix-timestamp"][0]) * 1000 if module is resend else None)
    if module in (mandrill, forwardemail, resend, mailersend):
        for changed in (body[:-1], body + b"\n", bytes([body[0] ^ 1]) + body[1:], b""):
            with pytest.raises(SignatureInvalid):
                module.verify(headers, changed, expected["proofs"], now_s)


@pytest.mark.parametrize("path", SIGNED, ids=_name)
@pytest.mark.parametrize(
    "change",
    [
        lambda value: [], lambda value: [value, value], lambda value: [value + "é"], lambda value: ["é" + value],
        lambda value: [""], lambda value: ["€"], lambda value: [value[:-1]],
    ],
)  # fmt: skip
def test_a_changed_proof_is_refused(path, change):
    module, headers, body, expected = _sample(path)
    for name in headers.keys() - {"content-type"}:
        with pytest.raises(SignatureInvalid):
            module.verify(
                headers | {name: change(headers[name][0])}, body, expected["proofs"], expected.get("now_s", 0)
            )


def test_every_provider_has_signed_and_malformed_samples():
    for name in FURTHER:
        assert any(path.parent.name == name for path in SIGNED), name
        assert sum(path.parent.name == name and path.name.startswith(("malformed", "events_")) for path in SAMPLES) >= 5


def test_an_element_nobody_can_read_is_for_a_person():
    for read in (sparkpost.read, brevo.read):
        name = "two_and_a_bad_one" if read is sparkpost.read else "items_with_a_bad_one"
        _, headers, body, _ = _sample(next(path for path in SAMPLES if path.stem == name))
        left = read(headers, body)[-1]
        decided = decision.decide(message.read(left.raw, source="x"), Keyring((b"k" * 32,)), decision.Policy(), {})

        assert decided.outcome is Outcome.MALFORMED


# -- codes


@pytest.mark.parametrize(
    ("module", "codes"),
    [(mandrill, (200, 503, 200, 401)), (sparkpost, (200, 503, 200, 401)), (mailjet, (200, 503, 200, 401)),
     (forwardemail, (200, 503, 200, 503)), (resend, (200, 503, 200, 401)), (mailersend, (200, 503, 200, 401)),
     (brevo, (200, 429, 200, 429)), (mailtrap, (200, 503, 200, 401))],
)  # fmt: skip
def test_the_answers_are_those_of_the_reference(module, codes):
    assert codes == (module.CODES.ack, module.CODES.retry, module.CODES.drop, module.CODES.auth_fail)


# -- mandrill


def _mandrill(body, key="KEY", url="https://u:p@x.example/in/mandrill?a=b", fields=()):
    signed = url.encode() + b"".join(name + value for name, value in sorted(fields))
    return {"x-mandrill-signature": [base64.b64encode(hmac.digest(key.encode(), signed, "sha1")).decode()]}


def test_mandrill_signs_every_field_by_name_after_decoding():
    body = b"z=%FF+%e9&mandrill_events=%5B%5D&a&=x"
    fields = [(b"z", b"\xff \xe9"), (b"mandrill_events", b"[]"), (b"a", b""), (b"", b"x")]
    proofs = ["OLD@https://x.example/", "KEY@https://u:p@x.example/in/mandrill?a=b"]

    assert mandrill.verify(_mandrill(body, fields=fields), body, proofs, NOW_S) is None
    assert mandrill.read({}, body) == []


@pytest.mark.parametrize(
    "proofs",
    [[], ["KEY"], ["KEY@"], ["KEY@x.example"], ["@https://u:p@x.example/in/mandrill?a=b"], ["KEY@https://u:p@x.example/in"],
     ["KEX@https://u:p@x.example/in/mandrill?a=b"], ["é@https://é"], ["KEY@ftp://u:p@x.example/in/mandrill?a=b"]],
)  # fmt: skip
def test_mandrill_refuses_another_key_or_url(proofs):
    body, fields = b"mandrill_events=%5B%5D", [(b"mandrill_events", b"[]")]

    with pytest.raises(SignatureInvalid):
        mandrill.verify(_mandrill(body, fields=fields), body, proofs, NOW_S)


def test_mandrill_says_that_a_proof_has_no_url():
    with pytest.raises(SignatureInvalid, match="another has no URL"):
        mandrill.verify(_mandrill(b""), b"", ["KEY", "KEY@https://x.example/"], NOW_S)


def test_mandrill_refuses_too_many_fields():
    body = b"a=b&" * 500

    with pytest.raises(PayloadInvalid, match="at most 500"):
        mandrill.read({}, body)
    with pytest.raises(SignatureInvalid, match="at most 500"):
        mandrill.verify(_mandrill(body), body, ["KEY@https://x.example/"], NOW_S)


FORM_PIECES = st.sampled_from(
    [b"%41", b"%3D", b"%3d0A", b"%0D%0A", b"%25", b"%ff", b"=", b"==", b"+", b" ", b"_", b"\n", b"\r\n", b"\xff", b"a"]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=60), st.lists(FORM_PIECES, max_size=20).map(b"".join)))
def test_a_form_is_decoded_as_urllib_does(value):
    value = value.replace(b"&", b"")
    if re.search(rb"%(?![0-9A-Fa-f]{2})", value):
        with pytest.raises(PayloadInvalid, match="two hex digits"):
            payload.read_urlencoded(b"a=" + value)
    else:
        assert payload.read_urlencoded(b"a=" + value) == [(b"a", unquote_to_bytes(value.replace(b"+", b" ")))]


def test_mandrill_reads_a_thousand_mails_of_one_post():
    event = {"event": "inbound", "msg": {"raw_msg": "To: x@y\r\n\r\n", "email": "a@b"}}
    body = b"mandrill_events=" + json.dumps([event] * 1000).encode()

    assert [each.envelope_to for each in mandrill.read({}, body)] == ["a@b"] * 1000


# -- secret headers


@pytest.mark.parametrize(
    ("module", "name", "proof"),
    [(sparkpost, "x-messagesystems-webhook-token", "token:VALUE"), (sparkpost, "x-own", "header:X-Own:VALUE"),
     (brevo, "x-own", "header:x-own:VALUE")],
)  # fmt: skip
def test_a_secret_header_is_compared_with_every_configured_value(module, name, proof):
    other = proof.replace("VALUE", "OTHER")

    assert module.verify({name: ["VALUE"]}, b"", [other, proof], NOW_S) is None
    for values in ([], [""], ["value"], ["VALUE "], ["VALUE", "VALUE"], ["é"], ["OTHER"]):
        with pytest.raises(SignatureInvalid):
            module.verify({name: values}, b"", [proof], NOW_S)


@pytest.mark.parametrize("module", [sparkpost, brevo])
@pytest.mark.parametrize(
    "proof", ["token:", "header:", "header::", "header:x-own:", "header:x-own", "VALUE", "x-own:VALUE", "é:é"]
)
def test_an_empty_or_odd_secret_opens_nothing(module, proof):
    for headers in ({"x-own": [""]}, {"": [""]}, {"x-messagesystems-webhook-token": [""]}, {"x-own": ["VALUE"]}):
        with pytest.raises(SignatureInvalid):
            module.verify(headers, b"", [proof], NOW_S)


# -- HMAC of the body


HMAC = [(forwardemail, "x-webhook-signature"), (mailersend, "signature"), (mailtrap, "mailtrap-signature")]


@pytest.mark.parametrize(("module", "name"), HMAC)
@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_any_configured_key_and_either_letter_case_holds(module, name, spelled):
    signature = spelled(hmac.new("schlüssel".encode(), b"body\xff", sha256).hexdigest())

    assert module.verify({name: [signature]}, b"body\xff", ["old", "basic:a:b", "schlüssel"], NOW_S) is None


@pytest.mark.parametrize(("module", "name"), HMAC)
@pytest.mark.parametrize("proofs", [[], [""], ["other"], ["basic:", "bearer:", "header:a:b"]])
def test_no_other_and_no_empty_key_signs(module, name, proofs):
    for key in (b"", b"key", b"basic:", b"header:a:b"):
        with pytest.raises(SignatureInvalid):
            module.verify({name: [hmac.new(key, b"body", sha256).hexdigest()]}, b"body", proofs, NOW_S)


# -- resend


def _resend(prefix="svix", timestamp=str(NOW_S), body=b"{}"):
    digest = hmac.digest(b"secret", f"msg_1.{timestamp}.".encode() + body, sha256)
    signature = "v1," + base64.b64encode(digest).decode()
    return {
        f"{prefix}-id": ["msg_1"],
        f"{prefix}-timestamp": [timestamp],
        f"{prefix}-signature": [f"v1,eA== {signature}"],
    }


SECRET = "whsec_" + base64.b64encode(b"secret").decode()


@pytest.mark.parametrize("prefix", ["svix", "webhook"])
@pytest.mark.parametrize("proofs", [["whsec_eA==", SECRET], [SECRET.removeprefix("whsec_")]])
def test_resend_takes_either_name_of_the_headers_and_any_secret(prefix, proofs):
    assert resend.verify(_resend(prefix), b"{}", proofs, NOW_S + 300) == NOW_S * 1000


@pytest.mark.parametrize("age_s", [301, -301])
def test_resend_forgives_five_minutes(age_s):
    with pytest.raises(SignatureInvalid, match="away"):
        resend.verify(_resend(), b"{}", [SECRET], NOW_S + age_s)


@pytest.mark.parametrize("timestamp", ["soon", "1e9", "٣", "9" * 5000])
def test_resend_refuses_a_signed_time_that_is_no_number(timestamp):
    with pytest.raises(SignatureInvalid):
        resend.verify(_resend(timestamp=timestamp), b"{}", [SECRET], NOW_S)


# -- mailtrap


def test_mailtrap_refers_to_every_received_mail():
    events = [
        {"event": "inbound.message_received", "event_id": "a", "timestamp": 1, "inbox_id": 7, "message_id": 8},
        {"event": "delivery", "event_id": "b"}, None, {"event": "inbound.message_received"},
        {"event": "inbound.message_received", "id": "c", "inboxId": "9", "messageId": True},
    ]  # fmt: skip

    assert mailtrap.references({}, json.dumps({"events": events}).encode()) == [
        Reference("a", "7", "8"),
        Reference("c", "9", ""),
    ]
    assert mailtrap.references({}, b'{"events": []}') == []


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"events": {}}', b'{"events": [{"event": "open"}]}',
                                  b'{"events": [{"event": "inbound.message_received", "event_id": []}]}'])  # fmt: skip
def test_mailtrap_gives_up_what_refers_to_no_mail(body):
    with pytest.raises(PayloadInvalid):
        mailtrap.references({}, body)


def _fetched(**fields):
    return json.dumps({"id": "8", "from": "A <a@b>", "subject": "stop", "text_body": "please", **fields}).encode()


def test_mailtrap_reads_what_its_api_answers_and_every_recipient_is_a_candidate():
    [found] = mailtrap.read({}, _fetched(to=["c@d", "e@f"], cc=[], bcc=["g@h"], headers={"To": "c@d", "X-A": "1"}))
    seen = message.read(found.raw, source="test")

    assert (found.envelope_to, found.envelope_from) == (None, None)
    assert [value for name, value in seen.headers if name in ("to", "apparently-to", "subject")] == [
        "c@d",
        "g@h",
        "stop",
    ]
    assert found.raw.endswith(b"\r\n\r\nplease")


def test_mailtrap_takes_one_delivered_to_for_the_envelope():
    one, two = ({"Delivered-To": value} for value in ("<c@d>", ["c@d", "e@f"]))

    assert [each.envelope_to for each in mailtrap.read({}, _fetched(headers=one))] == ["c@d"]
    assert [each.envelope_to for each in mailtrap.read({}, _fetched(headers=two))] == [None]


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"events": []}', _fetched(to="", headers=[1])])
def test_mailtrap_gives_up_a_mail_without_recipients(body):
    with pytest.raises(PayloadInvalid):
        mailtrap.read({}, body)


def test_the_token_for_the_api_of_mailtrap_proves_nothing():
    headers = {"mailtrap-signature": [hmac.new(b"api:t", b"{}", "sha256").hexdigest()]}
    with pytest.raises(SignatureInvalid):
        mailtrap.verify(headers, b"{}", ["api:t"], NOW_S)


# -- malformed at every level


BROKEN = [
    b"", b"\0", b"\xff", b"null", b"42", b"true", b'"x"', b"[]", b"{}", b"{", b"[null]", b"[42]", b"[[]]", b"[{}]", b"NaN",
    b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"raw":' + b"9" * 5000 + b"}", b"-----BOUNDARY", b"a=b&c=d",
    b"mandrill_events=" + b"[" * 100_000, b"mandrill_events=" + b"9" * 5000, b"mandrill_events",
    b"mandrill_events=%", b"mandrill_events=%5B%5",
]  # fmt: skip


@pytest.mark.parametrize("module", FURTHER.values())
@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:20]))
def test_a_broken_body_is_given_up(module, body):
    with pytest.raises(PayloadInvalid):
        module.read({}, body)


def test_an_element_with_a_long_number_or_half_an_emoji_costs_nobody_a_mail():
    item = '{"Headers": {"To": "x@y", "Subject": "\\ud83d"}, "SpamScore": ' + "9" * 5000 + "}"
    found = brevo.read({}, ('{"items": [' + item + ', {"Headers": {"Delivered-To": "a@\\udfff"}}]}').encode())

    assert [each.envelope_to for each in found] == [None, "a@\ufffd"]


def test_an_element_too_deep_to_show_does_not_stop_its_neighbours(monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda value: (_ for _ in ()).throw(RecursionError))
    found = payload.read_each([1, 2], lambda each: [] if each == 2 else payload.recipients(each))

    assert [each.envelope_to for each in found] == [None]


@pytest.mark.parametrize(("body", "expected"), [
    (b"\xef\xbb\xbf{}", {}), (b'{"a": 1234567890123456789}', {"a": 1234567890123456789}),
    (b'"\xff"', "\udcff"), (b'"\\ud83d\\ude00"', "\U0001f600"),
])  # fmt: skip
def test_json_is_read_as_it_is_meant(body, expected):
    assert payload.read_json(body) == expected


@given(st.binary(max_size=200))
def test_octets_survive_json_text(raw):
    quoted = re.sub(rb'[\x00-\x1f"\\]', lambda found: b"\\u%04x" % found[0][0], raw)

    assert payload.octets(payload.read_json(b'"' + quoted + b'"')) == raw


LEAF = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5), st.just("inbound"), st.just("a@b"),
    st.just("\ud800"), st.just("email.received"), st.just("inbound.message"), st.just("To: a@b\r\n\r\n"),
)  # fmt: skip
KEYS = [
    "event", "type", "msg", "raw_msg", "email", "headers", "text", "html", "msys", "relay_message", "content", "rcpt_to",
    "msg_from", "email_rfc822", "email_rfc822_is_base64", "Sender", "Recipient", "Headers", "Text-part", "raw", "recipients",
    "session", "sender", "mailFrom", "address", "data", "received_for", "to", "from", "bcc", "rcptTo", "items", "To", "From",
    "Address", "Delivered-To", "Return-Path", "events", "event_id", "x\n",
]  # fmt: skip
ANY_JSON = st.recursive(
    LEAF,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=12,
)
# Of the right shape down to one place: arbitrary JSON alone hardly ever gets past the first check.
SHAPES = [
    lambda any_: any_,
    lambda any_: [{"event": "inbound", "msg": any_}, any_],
    lambda any_: [{"event": "inbound", "msg": {"raw_msg": any_, "email": any_, "headers": any_, "text": "x"}}],
    lambda any_: [{"msys": any_}, {"msys": {"relay_message": any_}}],
    lambda any_: [{"msys": {"relay_message": {"rcpt_to": any_, "msg_from": any_, "content": any_}}}],
    lambda any_: {"Recipient": any_, "Sender": any_, "Headers": any_, "Text-part": any_, "From": any_},
    lambda any_: {"raw": any_, "recipients": any_, "session": any_, "headers": any_, "text": any_},
    lambda any_: {"type": "email.received", "data": any_},
    lambda any_: {"type": "email.received", "data": {"received_for": any_, "to": any_, "bcc": any_, "from": any_}},
    lambda any_: {"type": "inbound.message", "data": any_},
    lambda any_: {
        "type": "inbound.message",
        "data": {"recipients": any_, "sender": any_, "raw": any_, "headers": any_},
    },
    lambda any_: {"items": any_},
    lambda any_: {"items": [any_, {"Headers": any_, "To": any_, "From": any_, "RawTextBody": any_}]},
    lambda any_: {"events": any_},
]


def _survives(read, body):
    """Only `Rejected` may escape; what comes out can be read, decided and sent on."""
    try:
        found = read({}, body)
    except Rejected:
        return
    for each in found:
        if isinstance(each, Reference):
            continue
        read_ = message.read(each.raw, source="x", envelope_to=each.envelope_to, envelope_from=each.envelope_from)
        (each.envelope_to or "").encode()
        (each.envelope_from or "").encode()
        decision.decide(read_, Keyring((b"k" * 32,)), decision.Policy(), {})


READERS = [*(module.read for module in FURTHER.values()), mailtrap.references]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SHAPES), ANY_JSON)
def test_no_json_makes_read_raise_anything_but_rejected(shape, value):
    body = json.dumps(shape(value)).encode()
    for read in READERS:
        _survives(read, b"mandrill_events=" + body.replace(b"%", b"%25").replace(b"&", b"%26").replace(b"+", b"%2b"))
        _survives(read, body)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.binary(max_size=60).map(lambda raw: b'mandrill_events=[{"event":' + raw)))
def test_no_octets_make_read_raise_anything_but_rejected(body):
    for read in READERS:
        _survives(read, body)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_sample_makes_read_raise_nothing_but_rejected(data):
    module, _headers, body, _ = _sample(data.draw(st.sampled_from(SAMPLES)))
    at = data.draw(st.integers(0, len(body)))
    length = data.draw(st.integers(0, 30))
    _survives(module.read, body[:at] + data.draw(st.binary(max_size=10)) + body[at + length :])


NAMES = ["authorization", "x-mandrill-signature", "x-messagesystems-webhook-token", "x-webhook-signature", "svix-id",
         "svix-timestamp", "svix-signature", "webhook-signature", "signature", "mailtrap-signature", "x-own"]  # fmt: skip
VALUE = st.one_of(st.text(st.characters(max_codepoint=255), max_size=40), st.just("Basic eDp5"), st.just("v1,eA=="))
PROOF = st.one_of(
    st.text(max_size=20), st.sampled_from(["KEY@https://x.example/", "header:x-own:k\u00e9y", "token:t", SECRET])
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.lists(VALUE, max_size=2)),
    st.binary(max_size=50),
    st.lists(PROOF, max_size=3),
)
def test_no_header_makes_verify_raise_anything_but_signature_invalid(headers, body, proofs):
    for module in (*FURTHER.values(), mailtrap):
        with pytest.raises(SignatureInvalid):
            module.verify(headers, body, proofs, NOW_S)
