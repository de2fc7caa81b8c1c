"""Webhooks: proofs, envelopes, exact octets, and that no body and no header raises anything but `Rejected`."""

import base64
import hmac
import json
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import message
from handlers.errors import ContentTypeInvalid, PayloadInvalid, Rejected, SignatureInvalid
from handlers.providers import PROVIDERS, mailgun, provider, relay, sendgrid
from handlers.providers.form import read_multipart
from handlers.providers.webhook import fresh_ms

NOW_S = 1_790_000_000
SECRET = "whsec_" + base64.b64encode(b"the secret of the relay").decode()
LETTER = b"From: jane@example.com\r\nTo: x@y\r\n\r\nplease\xff\x00\r\n"
LATIN = st.text(st.characters(max_codepoint=255), max_size=60)
FORM = {"content-type": ["multipart/form-data; boundary=b"]}
MAIL = {"content-type": ["message/rfc822"]}


def _basic(user_and_password, charset="utf-8"):
    return {"authorization": ["Basic " + base64.b64encode(user_and_password.encode(charset)).decode()]}


# -- the registry


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_has_codes_verify_and_read(name):
    module = provider(name)

    assert 200 <= module.CODES.ack < 300
    assert module.CODES.retry in (429, 503)
    assert callable(module.verify)
    assert callable(module.read)


OWN_DROP_CODES = {"mailgun": 406, "postmark": 403}  # every other answer but 200 they repeat


@pytest.mark.parametrize("name", PROVIDERS)
def test_giving_up_is_a_success_because_a_client_error_bounces_to_the_subscriber(name):
    assert OWN_DROP_CODES.get(name, 200) == provider(name).CODES.drop


@pytest.mark.parametrize("name", sorted({"sendgrid", "postal", "cloudmailin"} & set(PROVIDERS)))
def test_a_provider_that_bounces_or_drops_on_a_client_error_never_gets_one(name):
    codes = provider(name).CODES

    assert not {code for code in (codes.ack, codes.retry, codes.drop, codes.auth_fail) if 300 <= code < 500}


@pytest.mark.parametrize("name", ["", "nobody", "Relay", "../relay", "x" * 999])
def test_an_unknown_provider_is_rejected(name):
    with pytest.raises(Rejected, match=r"expected one of .*relay, .*sendgrid"):
        provider(name)


# -- shared secrets


@pytest.mark.parametrize("module", [relay, sendgrid])  # ses wants a signature besides
@pytest.mark.parametrize(
    ("headers", "proof"),
    [
        (_basic("user:password"), "basic:user:password"),
        (_basic("user:pass:word"), "basic:user:pass:word"),
        (_basic("üser:pässwörd €"), "basic:üser:pässwörd €"),
        ({"authorization": ["bearer  token "]}, "bearer:token"),
        ({"authorization": ["Bearer tökén"]}, "bearer:tökén"),
    ],
)
def test_a_shared_secret_is_enough_and_has_no_time(module, headers, proof):
    assert module.verify(headers, LETTER, [proof, "basic:other:x"], NOW_S) is None
    assert module.verify(headers, LETTER, ["basic:other:x", SECRET, proof], NOW_S) is None


@pytest.mark.parametrize("module", PROVIDERS.values())
@pytest.mark.parametrize(
    "headers",
    [
        {}, _basic("user:passwore"), _basic("user"), _basic(""), _basic("user:pässword", "latin-1"),
        {"authorization": ["Basic !!!"]}, {"authorization": ["Basic"]}, {"authorization": [""]}, {"authorization": []},
        {"authorization": ["Basic ü"]}, {"authorization": ["Bearer user:password"]}, {"authorization": ["user:password"]},
        {"authorization": ["Digest user:password"]}, {"authorization": [_basic("user:password")["authorization"][0]] * 2},
    ],
)  # fmt: skip
@pytest.mark.parametrize("proofs", [["basic:user:password"], ["bearer:token", "basic:"], ["bearer:"], []])
def test_any_other_authorization_is_refused(module, headers, proofs):
    with pytest.raises(SignatureInvalid):
        module.verify(headers, LETTER, proofs, NOW_S)


@pytest.mark.parametrize("module", PROVIDERS.values())
@pytest.mark.parametrize("proofs", [["basic:user:secret"], ["bearer:secret"], ["secret"]])
def test_errors_tell_no_secret(module, proofs):
    with pytest.raises(SignatureInvalid) as error:
        module.verify(_basic("user:guess"), LETTER, proofs, NOW_S)

    assert not {"secret", "guess"} & set(str(error.value).split())


# -- relay: Standard Webhooks


def _signed(body=LETTER, secret=SECRET, message_id="msg_1", timestamp=NOW_S):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, sha256).digest()
    return {
        "webhook-id": [message_id],
        "webhook-timestamp": [str(timestamp)],
        "webhook-signature": ["v1," + base64.b64encode(digest).decode()],
    }


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_relay_signature_gives_the_signed_time(secret):
    assert relay.verify(_signed(), LETTER, [secret], NOW_S + 5) == NOW_S * 1000


def test_relay_accepts_any_configured_secret_and_any_signature_of_the_list():
    headers = _signed()
    headers["webhook-signature"] = ["v2,x v1,eA== " + headers["webhook-signature"][0] + " v1,"]

    assert relay.verify(headers, LETTER, ["bearer:x", "not base64!", "whsec_eA==", SECRET], NOW_S) == NOW_S * 1000


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize(
    "change", [lambda value: [], lambda value: [value, value], lambda value: [value + "é"], lambda value: ["é" + value],
               lambda value: [""], lambda value: [value.upper() + "1"], lambda value: ["€"]],
)  # fmt: skip
def test_relay_refuses_a_changed_header(name, change):
    headers = _signed()

    with pytest.raises(SignatureInvalid):
        relay.verify(headers | {name: change(headers[name][0])}, LETTER, [SECRET], NOW_S)


@pytest.mark.parametrize("body", [LETTER[:-1], LETTER + b"\n", b"", LETTER.replace(b"\xff", b"\xef")])
def test_relay_refuses_another_body(body):
    with pytest.raises(SignatureInvalid):
        relay.verify(_signed(), body, [SECRET], NOW_S)


@pytest.mark.parametrize(
    "proofs", [[], ["whsec_"], ["whsec_!"], ["whsec_" + base64.b64encode(b"other").decode()], ["é"]]
)
def test_relay_refuses_without_the_right_secret(proofs):
    with pytest.raises(SignatureInvalid):
        relay.verify(_signed(), LETTER, proofs, NOW_S)


def test_an_empty_secret_signs_nothing():
    with pytest.raises(SignatureInvalid):
        relay.verify(_signed(secret=""), LETTER, ["whsec_", ""], NOW_S)


@pytest.mark.parametrize(("age_s", "fresh"), [(0, True), (3600, True), (-3600, True), (3601, False), (-3601, False)])
def test_relay_forgives_an_hour(age_s, fresh):
    if fresh:
        assert relay.verify(_signed(), LETTER, [SECRET], NOW_S + age_s) == NOW_S * 1000
    else:
        with pytest.raises(SignatureInvalid, match="away"):
            relay.verify(_signed(), LETTER, [SECRET], NOW_S + age_s)


@pytest.mark.parametrize(
    "timestamp", ["soon", "1e9", "-1", "1_790_000_000", "١٧٩٠٠٠٠٠٠٠", "1790000000.0", "9" * 5000, " 1790000000"]
)
def test_a_timestamp_that_is_no_number_is_refused_even_when_signed(timestamp):
    headers = _signed(timestamp=timestamp)
    with pytest.raises(SignatureInvalid):
        relay.verify(headers, LETTER, [SECRET], NOW_S)


@pytest.mark.parametrize("timestamp", ["", "soon", "²", "١٧", "1_7", "9" * 12, "-1"])
def test_only_ascii_digits_are_a_timestamp(timestamp):
    with pytest.raises(SignatureInvalid, match="expected Unix seconds"):
        fresh_ms(timestamp, NOW_S, 10**12)


# -- relay: the message


def test_relay_keeps_every_octet():
    [found] = relay.read(MAIL | {"x-envelope-to": ["a@b"]}, LETTER)

    assert (found.raw, found.envelope_to, found.envelope_from) == (LETTER, "a@b", None)


@pytest.mark.parametrize("kind", ["message/rfc822", "Message/RFC822; charset=utf-8", " message/rfc822 ;x"])
def test_relay_takes_message_rfc822(kind):
    assert len(relay.read({"content-type": [kind]}, LETTER)) == 1


@pytest.mark.parametrize(
    "kind", [["text/plain"], ["application/json"], [""], [], ["message/rfc822", "text/plain"], ["é"]]
)
def test_relay_refuses_other_types_as_a_mistake_of_its_set_up(kind):
    with pytest.raises(ContentTypeInvalid):
        relay.read({"content-type": kind}, LETTER)


@pytest.mark.parametrize("body", [b"", b"\r\n", b" \n\t\n"])
def test_relay_gives_up_on_an_empty_body(body):
    with pytest.raises(PayloadInvalid) as error:
        relay.read(MAIL, body)

    assert not isinstance(error.value, ContentTypeInvalid)


def test_relay_gives_one_message_for_each_envelope_recipient():
    headers = MAIL | {"x-envelope-to": ["<a@b>", "c@d"], "x-envelope-from": ["<>"]}

    found = relay.read(headers, LETTER)

    assert [(each.envelope_to, each.envelope_from) for each in found] == [("<a@b>", "<>"), ("c@d", "<>")]


def test_two_recipients_of_one_body_have_two_keys():
    found = relay.read(MAIL | {"x-envelope-to": ["a@b", "c@d"]}, LETTER)

    assert len({message.read(each.raw, source="x", envelope_to=each.envelope_to).key for each in found}) == 2


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("X-Original-To: a@b\nDelivered-To: c@d\nReceived: x\n", ["a@b"]),
        ("Delivered-To: c@d\nReceived: x\n", ["c@d"]),
        ("Delivered-To: <c@d>\nDelivered-To: e@f\nDelivered-To: c@d\nReceived: x\n", ["c@d", "e@f"]),
        ("Received: x\nX-Original-To: a@b\n", [None]),
        ("X-Original-To: a@b\n", [None]),
        ("To: a@b\nReceived: x\n", [None]),
        ("", [None]),
    ],
)
def test_relay_believes_the_lines_above_the_first_received(lines, expected):
    body = (lines + "From: x@y\n\nbody").encode()

    assert expected == [each.envelope_to for each in relay.read(MAIL, body)]


def test_a_request_header_beats_the_prepended_lines():
    [found] = relay.read(MAIL | {"x-envelope-to": ["a@b"]}, b"X-Original-To: c@d\nReceived: x\n\n")

    assert found.envelope_to == "a@b"


# -- sendgrid: ECDSA


@pytest.fixture(scope="module")
def private_key():
    return ec.generate_private_key(ec.SECP256R1())


def _public(key):
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def _twilio(key, body=LETTER, timestamp=str(NOW_S)):
    signature = base64.b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    return {sendgrid._SIGNATURE: [signature], sendgrid._TIMESTAMP: [timestamp]}


def test_sendgrid_signature_gives_the_signed_time(private_key):
    proofs = ["basic:a:b", "no key", _public(private_key)]

    assert sendgrid.verify(_twilio(private_key), LETTER, proofs, NOW_S + 9) == NOW_S * 1000


@pytest.mark.parametrize("name", [sendgrid._SIGNATURE, sendgrid._TIMESTAMP])
@pytest.mark.parametrize(
    "change", [lambda value: [], lambda value: [value, value], lambda value: [value + "é"], lambda value: [""],
               lambda value: ["eA=="], lambda value: [value[:-1]], lambda value: ["€"], lambda value: ["!" + value]],
)  # fmt: skip
def test_sendgrid_refuses_a_changed_header(private_key, name, change):
    headers = _twilio(private_key)

    with pytest.raises(SignatureInvalid):
        sendgrid.verify(headers | {name: change(headers[name][0])}, LETTER, [_public(private_key)], NOW_S)


@pytest.mark.parametrize("body", [LETTER[:-1], LETTER + b"\n", b"", LETTER.replace(b"\xff", b"\xef")])
def test_sendgrid_refuses_another_body(private_key, body):
    with pytest.raises(SignatureInvalid):
        sendgrid.verify(_twilio(private_key), body, [_public(private_key)], NOW_S)


def test_sendgrid_refuses_other_keys(private_key):
    others = [
        _public(ec.generate_private_key(ec.SECP256R1())),
        _public(rsa.generate_private_key(65537, 2048)),
        "",
        "é",
        "eA==",
    ]

    with pytest.raises(SignatureInvalid):
        sendgrid.verify(_twilio(private_key), LETTER, others, NOW_S)


def test_sendgrid_refuses_a_key_of_an_unknown_algorithm(private_key):
    # id-ecPublicKey over a curve named 1.3.132.0.6, which cryptography does not know
    unknown = base64.b64encode(bytes.fromhex("3019301006072a8648ce3d020106052b8104000603050004010203")).decode()

    with pytest.raises(SignatureInvalid):
        sendgrid.verify(_twilio(private_key), LETTER, [unknown], NOW_S)


@pytest.mark.parametrize(("age_s", "fresh"), [(3 * 86400, True), (-3 * 86400, True), (3 * 86400 + 1, False)])
def test_sendgrid_forgives_three_days(private_key, age_s, fresh):
    if fresh:
        assert sendgrid.verify(_twilio(private_key), LETTER, [_public(private_key)], NOW_S + age_s) == NOW_S * 1000
    else:
        with pytest.raises(SignatureInvalid, match="away"):
            sendgrid.verify(_twilio(private_key), LETTER, [_public(private_key)], NOW_S + age_s)


def test_a_signed_timestamp_that_is_no_number_is_refused(private_key):
    with pytest.raises(SignatureInvalid):
        sendgrid.verify(_twilio(private_key, timestamp="soon"), LETTER, [_public(private_key)], NOW_S)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(
    st.sampled_from(["authorization", "webhook-id", "webhook-timestamp", "webhook-signature", sendgrid._SIGNATURE,
                     sendgrid._TIMESTAMP]), st.lists(st.one_of(LATIN, st.just("Basic eDp5"), st.just("v1,eA==")), max_size=2)),
    st.binary(max_size=50), st.lists(st.one_of(st.text(max_size=30), st.just(SECRET)), max_size=3))  # fmt: skip
def test_no_header_makes_verify_raise_anything_but_rejected(headers, body, proofs):
    for module in PROVIDERS.values():
        with pytest.raises(SignatureInvalid if module is not mailgun else Rejected):  # there the proof is in the body
            module.verify(headers, body, proofs, NOW_S)


# -- sendgrid: the form


def _form(fields, boundary="b", line_end="\r\n"):
    lines = []
    for name, value in fields:
        octets = value if isinstance(value, bytes) else value.encode()
        lines += [f"--{boundary}".encode(), f'Content-Disposition: form-data; name="{name}"'.encode(), b"", octets]
    return line_end.encode().join([*lines, f"--{boundary}--".encode(), b""])


def _envelope(envelope, raw=LETTER):
    return _form([("email", raw), ("envelope", envelope if isinstance(envelope, str) else json.dumps(envelope))])


def test_sendgrid_raw_mode_keeps_every_octet():
    [found] = sendgrid.read(FORM, _envelope({"to": ["a@b"], "from": "c@d"}))

    assert (found.raw, found.envelope_to, found.envelope_from) == (LETTER, "a@b", "c@d")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_sendgrid_raw_mode_keeps_any_octets(raw):
    if b"\r\n--b" not in b"\r\n" + raw:
        [found] = sendgrid.read(FORM, _envelope({"to": ["a@b"]}, raw))

        assert raw == found.raw


def test_sendgrid_raw_mode_keeps_a_megabyte():
    raw = b"Subject: x\r\n\r\n" + b"\xe9\r\n" * 400_000

    assert sendgrid.read(FORM, _envelope({"to": ["a@b"]}, raw))[0].raw == raw


def test_sendgrid_gives_one_message_for_each_envelope_recipient():
    found = sendgrid.read(FORM, _envelope({"to": ["a@b", "c@d"], "from": ""}))

    assert [(each.raw, each.envelope_to, each.envelope_from) for each in found] == [
        (LETTER, "a@b", ""),
        (LETTER, "c@d", ""),
    ]


def test_sendgrid_parsed_mode_gives_headers_and_text_as_they_are():
    fields = [("headers", b"To: x@y\nSubject: \xe9\n"), ("text", b"pl\xe9ase"), ("envelope", '{"to":["a@b"]}')]

    [found] = sendgrid.read(FORM, _form(fields))

    assert (found.raw, found.envelope_to) == (b"To: x@y\nSubject: \xe9\r\n\r\npl\xe9ase", "a@b")
    assert message.read(found.raw, source="x").value("to") == "x@y"


@pytest.mark.parametrize("fields", [[("email", LETTER)], [("headers", "To: x@y")]])
def test_sendgrid_without_an_envelope_leaves_the_headers_as_candidates(fields):
    [found] = sendgrid.read(FORM, _form(fields))

    assert (found.envelope_to, found.envelope_from) == (None, None)


def test_of_a_repeated_field_the_first_counts():
    fields = [("email", LETTER), ("envelope", '{"to":["a@b"]}'), ("envelope", '{"to":["c@d"]}')]

    assert [each.envelope_to for each in sendgrid.read(FORM, _form(fields))] == ["a@b"]


@pytest.mark.parametrize("sender", [None, 3, ["c@d"], {"a": 1}, True])
def test_an_envelope_sender_of_another_type_is_not_told(sender):
    assert sendgrid.read(FORM, _envelope({"to": ["a@b"], "from": sender}))[0].envelope_from is None


@pytest.mark.parametrize(
    "envelope",
    [
        "", "null", "42", "true", '"a@b"', "[]", '["a@b"]', "{}", '{"to": null}', '{"to": "a@b"}', '{"to": {"a": "b"}}',
        '{"to": []}', '{"to": [null]}', '{"to": ["a@b", 3]}', '{"to": [["a@b"]]}', '{"to": [{}]}', '{"To": ["a@b"]}', "{",
        "{'to': ['a@b']}", "[" * 100_000, '{"to":' * 100_000, "9" * 5000, '{"to": [' + "9" * 5000 + "]}", "\0", "NaN",
    ],
)  # fmt: skip
def test_a_malformed_envelope_is_given_up(envelope):
    with pytest.raises(PayloadInvalid):
        sendgrid.read(FORM, _envelope(envelope))


@pytest.mark.parametrize(
    "envelope", [b'{"to":["a@b\xff"]}', b'{"to":["\\ud800@b"]}', b'{"to":["a@b\\u0000"],"from":"\\udfff"}']
)
def test_an_odd_recipient_is_read_and_named_by_nobody(envelope):
    [found] = sendgrid.read(FORM, _form([("email", LETTER), ("envelope", envelope)]))

    read = message.read(found.raw, source="x", envelope_to=found.envelope_to, envelope_from=found.envelope_from)
    assert read.candidates[0].where == "envelope"


@pytest.mark.parametrize(
    "fields",
    [[], [("envelope", '{"to":["a@b"]}')], [("text", "x")], [("Email", LETTER)], [("email", "")], [("headers", "\r\n")],
     [("signature[]", "x")], [("", LETTER)]],
)  # fmt: skip
def test_a_form_without_a_message_is_given_up(fields):
    with pytest.raises(PayloadInvalid):
        sendgrid.read(FORM, _form(fields))


GOOD = _envelope({"to": ["a@b"]})


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""', "application/json", "", "é",
        "multipart/form-data; boundary=é", "multipart/form-data; boundary=€", "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=" + "b" * 5000, "multipart/form-data; boundary*=utf-8''b",
        "multipart/form-data; boundary*0=b; boundary*1=c", "multipart/form-data; boundary*" + "9" * 5000 + "=b",
        "multipart/form-data" + ';"a' * 20_000, "multipart/form-data; boundary=b\0",
    ],
)  # fmt: skip
def test_a_content_type_without_the_right_boundary_is_given_up(kind):
    with pytest.raises(PayloadInvalid):
        sendgrid.read({"content-type": [kind]}, GOOD)


@pytest.mark.parametrize("kind", [[], ["multipart/form-data"] * 2])
def test_a_missing_or_doubled_content_type_is_given_up(kind):
    with pytest.raises(PayloadInvalid):
        sendgrid.read({"content-type": kind}, GOOD)


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", 'Multipart/Form-Data; charset=x; Boundary="b"'])
def test_a_boundary_is_found_however_it_is_spelled(kind):
    assert len(sendgrid.read({"content-type": [kind]}, GOOD)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\r\n", b"--b", b"--b--", b"--b--\r\n", b'{"to": 1}', GOOD[:-6], GOOD[:99], GOOD.replace(b"--b", b"--c"),
        _form([("email", LETTER)], line_end="\n"), b"preamble\r\n" + GOOD, GOOD[1:],
    ],
)  # fmt: skip
def test_a_broken_body_is_given_up(body):
    with pytest.raises(PayloadInvalid):
        sendgrid.read(FORM, body)


@pytest.mark.parametrize("names", [[f"field{number}" for number in range(501)], ["same"] * 501])
def test_too_many_fields_are_given_up(names):
    with pytest.raises(PayloadInvalid, match="at most 500"):
        sendgrid.read(FORM, _form([("email", LETTER), *((name, "") for name in names)]))


@pytest.mark.parametrize(
    "disposition",
    [
        "form-data", "form-data; name", "form-data; name*=utf-8''email", "form-data; name*" + "9" * 4000 + "=email", "name=email",
        "form-data; name=\"email", "\xff", "attachment", "form-data; name*0*=x''y; name*0=z", ";" * 4000,
    ],
)  # fmt: skip
def test_an_odd_disposition_names_no_field_or_one_and_raises_nothing_else(disposition):
    body = b"--b\r\nContent-Disposition: " + disposition.encode("latin-1") + b"\r\n\r\nx\r\n--b--\r\n"

    assert set(read_multipart("multipart/form-data; boundary=b", body)) <= {"", "email", '"email'}


PIECES = st.sampled_from(
    [b"--b\r\n", b"--b--\r\n", b"\r\n", b"Content-Disposition: ", b'form-data; name="email"', b'form-data; name="envelope"',
     b'{"to": ["a@b"]}', b"\r\n\r\n", b"\n", b"x", b"\xff", b";", b'"', b"name*="]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=20).map(b"".join)), LATIN)
def test_no_body_and_no_content_type_makes_read_raise_anything_but_rejected(body, kind):
    for content_type in (kind, "multipart/form-data; boundary=b", "message/rfc822", f"multipart/form-data; {kind}"):
        for module in PROVIDERS.values():
            try:
                assert isinstance(module.read({"content-type": [content_type], "x-envelope-to": [kind]}, body), list)
            except Rejected:
                pass


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["to", "from", "x"]), inner)),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_no_envelope_makes_sendgrid_raise_anything_but_rejected(envelope):
    try:
        found = sendgrid.read(FORM, _envelope(envelope))
    except Rejected:
        return

    assert envelope["to"] == [each.envelope_to for each in found]
