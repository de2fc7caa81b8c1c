"""Amazon SES through SNS: whose post it is, what was signed, and that no JSON raises anything but `Rejected`."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import message
from handlers.errors import CredentialsMissing, PayloadInvalid, Rejected, SignatureInvalid
from handlers.providers import ses, sns
from tests.harness.posts import basic
from tests.harness.sns import (
    CERTIFICATE_URL,
    HOST,
    TOKEN,
    TOPIC,
    certificate,
    envelope,
    headers,
    iso,
    received,
    signed,
    subscription,
)  # fmt: skip

NOW_S = 1_790_000_000
LETTER = b"From: jane@example.com\r\nTo: x@y\r\n\r\nplease\xff\r\n"
CERTIFICATE = certificate()
ONE = received("u+one@unsub.example.com", raw=LETTER)
OTHER_TOPIC = TOPIC.replace("inbound", "outbound")
SAMPLES = Path(__file__).parents[1] / "webhooks" / "ses"


def _made(**fields):
    return signed(envelope(ONE, at_s=NOW_S, **fields))


def _verify(post, proofs=(TOPIC,), now_s=NOW_S, pem=CERTIFICATE, **more):
    told = {name.lower(): [value] for name, value in headers(post).items()} | more
    return ses.verify(told, json.dumps(post).encode(), list(proofs), now_s, pem)


def _refused(post, **more):
    with pytest.raises(SignatureInvalid) as error:
        _verify(post, **more)
    return str(error.value)


# -- the signature


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [None, "Amazon SES Email Receipt Notification", "", "schön"])
def test_a_signed_notification_gives_the_time_of_publishing(version, subject):
    assert _verify(_made(SignatureVersion=version, Subject=subject)) == NOW_S * 1000


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_a_signed_confirmation_verifies(kind, version):
    assert _verify(signed(subscription(Type=kind, SignatureVersion=version, at_s=NOW_S))) == NOW_S * 1000


def test_a_subject_of_null_counts_as_absent():
    assert _verify(_made() | {"Subject": None}) == NOW_S * 1000


def test_a_signature_may_be_broken_into_lines():
    post = _made()
    lines = base64.encodebytes(base64.b64decode(post["Signature"])).decode()

    assert _verify(post | {"Signature": lines}) == NOW_S * 1000


@pytest.mark.parametrize("field", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", "Signature"])
def test_one_changed_character_is_refused(field):
    post = _made(Subject="x")
    value = post[field]
    for at in {0, len(value) // 2, len(value) - 2}:
        changed = value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]
        with pytest.raises(Rejected):
            _verify(post | {field: changed}, proofs=[TOPIC, changed])


@pytest.mark.parametrize("field", ["SubscribeURL", "Token"])
def test_one_changed_character_of_a_confirmation_is_refused(field):
    post = signed(subscription(at_s=NOW_S))

    assert "Signature" in _refused(post | {field: post[field] + "x"})


@pytest.mark.parametrize(
    "change",
    [{"SignatureVersion": "1"}, {"SignatureVersion": "3"}, {"SignatureVersion": ""}, {"SignatureVersion": None},
     {"Signature": ""}, {"Signature": None}, {"Signature": "é"}, {"Signature": "!"}, {"Signature": "eA=="},
     {"Subject": "put in"}],
)  # fmt: skip
def test_another_signature_is_refused(change):
    assert "Signature" in _refused(_made() | change)


def test_another_key_is_refused():
    stranger = rsa.generate_private_key(65537, 2048)

    assert "Signature" in _refused(signed(envelope(ONE, at_s=NOW_S), stranger))


def _small():
    return rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (b"", "nobody fetched"), (b"<html>", "expected PEM"), (CERTIFICATE[:300], "expected PEM"), (b"\xff", "expected PEM"),
        (CERTIFICATE.replace(b"CERTIFICATE", b"PUBLIC KEY"), "expected PEM"),
        (certificate(until_s=NOW_S - 1), "not valid today"), (certificate(from_s=NOW_S + 1), "not valid today"),
        (certificate(ec.generate_private_key(ec.SECP256R1())), "expected an RSA key"),
        (certificate(ed25519.Ed25519PrivateKey.generate()), "expected an RSA key"), (certificate(_small()),
        "expected an RSA key"),
    ],
)  # fmt: skip
def test_another_certificate_is_refused(pem, said):
    assert said in _refused(_made(), pem=pem)


# -- the certificate's URL


@pytest.mark.parametrize(
    "url",
    [
        "https://sns.us-east-1.amazonaws.com.evil.example/x.pem", "http://sns.us-east-1.amazonaws.com/x.pem",
        "https://user@sns.us-east-1.amazonaws.com/x.pem", "https://u:p@sns.us-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com:443/x.pem", "https://sns.us-east-1.amazonaws.com:8443/x.pem",
        "https://sns.us-east-1.amazonaws.com/x.pem?a=b", "https://sns.us-east-1.amazonaws.com/x.pem#a",
        "https://sns.us-east-1.amazonaws.com/x.pem\n", "https://sns.us-east-1.amazonaws.com/x.pem\r\nHost: x",
        "https://sns.eu-west-1.amazonaws.com/x.pem", "https://sns.us-east-1.amazonaws.com.cn/x.pem",
        "https://sns.us-east-1.amazonaws.com/x.PEM", "https://sns.us-east-1.amazonaws.com/x", HOST, f"{HOST}/", f"{HOST}/.pem",
        "https://SNS.us-east-1.amazonaws.com/x.pem", "https://sns.us-east-1.amazonaws.com./x.pem", f"{HOST}/../x.pem",
        "https://sns.us-east-1.amazonaws.com\\@evil.example/x.pem", "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
        "https://evil.example#@sns.us-east-1.amazonaws.com/x.pem", "https://169.254.169.254/x.pem", "file:///etc/x.pem",
        "https://s3.us-east-1.amazonaws.com/x.pem", "https://sns.us-east-1.amazonaws.com%2eevil.example/x.pem",
        "https://sns.us-east-1。amazonaws.com/x.pem", " https://sns.us-east-1.amazonaws.com/x.pem", "",
        f"{HOST}/" + "x" * 999 + ".pem",
        f"{HOST}//evil.example/x.pem?", "https://sns.us-east-1.amazonaws.com/x.pem\0",
    ],
)  # fmt: skip
def test_a_certificate_elsewhere_is_refused_before_anybody_is_asked(url):
    post = _made(SigningCertURL=url)

    assert "SigningCertURL" in _refused(post)
    with pytest.raises(SignatureInvalid, match="SigningCertURL"):
        ses.certificate_url({}, json.dumps(post).encode(), [TOPIC], NOW_S)


@pytest.mark.parametrize(
    ("topic", "host"),
    [
        (TOPIC, "sns.us-east-1.amazonaws.com"),
        ("arn:aws-cn:sns:cn-north-1:111111111111:in", "sns.cn-north-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:sns:us-gov-west-1:111111111111:in", "sns.us-gov-west-1.amazonaws.com"),
    ],
)
def test_the_certificate_is_at_sns_in_the_region_of_the_topic(topic, host):
    post = _made(TopicArn=topic, SigningCertURL=f"https://{host}/x.pem")

    assert f"https://{host}/x.pem" == ses.certificate_url({}, json.dumps(post).encode(), [topic], NOW_S)
    assert _verify(post, proofs=[topic]) == NOW_S * 1000


# -- whose topic


@pytest.mark.parametrize(
    "topic", [OTHER_TOPIC, TOPIC.upper(), TOPIC + "\n", TOPIC[:-1], "", None, "arn:aws:sns:us-east-1"]
)
def test_a_good_signature_of_another_topic_is_refused(topic):
    assert "TopicArn" in _refused(_made(TopicArn=topic))


@pytest.mark.parametrize(
    "topic", ["arn:", "arn:aws:sns:evil.example/:111111111111:x", "arn:aws:sqs:us-east-1:111111111111:x",
              "arn:aws-iso:sns:us-iso-east-1:111111111111:x", "arn:aws:sns:us-east-1:١٢٣٤٥٦٧٨٩٠١٢:x",
              "arn:aws:sns:us-east-1:1:x"],
)  # fmt: skip
def test_a_configured_topic_that_is_none_is_refused(topic):
    assert "expected arn:aws:sns:REGION:ACCOUNT:TOPIC" in _refused(_made(TopicArn=topic), proofs=[topic])


@pytest.mark.parametrize(
    "proofs", [[], ["basic:user:password"], ["bearer:token"], ["secret"], [TOPIC, "whsec_x"], [""]]
)
def test_without_a_topic_or_with_an_unknown_proof_every_post_is_refused(proofs):
    assert "secret" not in _refused(_made(), proofs=proofs, **_authorization("user:password"))


@pytest.mark.parametrize("odd", ["bearer:token", "whsec_x", "user:password"])
@pytest.mark.parametrize("authorization", ["Bearer token", basic("user:password")["Authorization"]])
def test_a_proof_that_sns_cannot_bring_refuses_every_post(odd, authorization):
    said = _refused(_made(), proofs=[TOPIC, "basic:user:password", odd], authorization=[authorization])

    assert "neither arn:aws:sns:REGION:ACCOUNT:TOPIC nor basic:USER:PASSWORD" in said


def _authorization(user_and_password):
    return {"authorization": [basic(user_and_password)["Authorization"]]}


# -- basic authentication, in addition


def test_basic_authentication_is_required_besides_the_signature():
    proofs = [TOPIC, "basic:user:old", "basic:user:new"]

    assert _verify(_made(), proofs=proofs, **_authorization("user:new")) == NOW_S * 1000
    assert "Authorization" in _refused(_made(), proofs=proofs, **_authorization("user:other"))
    assert "Signature" in _refused(_made() | {"MessageId": "x"}, proofs=proofs, **_authorization("user:new"))


def test_credentials_that_are_missing_are_asked_for():
    with pytest.raises(CredentialsMissing):
        _verify(_made(), proofs=[TOPIC, "basic:user:password"])


def test_wrong_credentials_are_not_asked_for_again():
    for authorization in (["Basic !"], ["Bearer x"], ["x"] * 2):
        with pytest.raises(SignatureInvalid) as error:
            _verify(_made(), proofs=[TOPIC, "basic:user:password"], authorization=authorization)

        assert not isinstance(error.value, CredentialsMissing)


# -- headers, time, settings of the subscription


@pytest.mark.parametrize("name", ["x-amz-sns-message-type", "x-amz-sns-message-id", "x-amz-sns-topic-arn"])
@pytest.mark.parametrize("values", [["other"], ["é"], [""], ["a", "b"]])
def test_headers_that_say_otherwise_are_refused(name, values):
    assert name in _refused(_made(), **{name: values})


@pytest.mark.parametrize(
    ("age_s", "fresh"), [(0, True), (86400, True), (-86400, True), (86401, False), (-86401, False)]
)
def test_a_day_is_forgiven(age_s, fresh):
    if fresh:
        assert _verify(_made(), now_s=NOW_S + age_s) == NOW_S * 1000
    else:
        assert "away" in _refused(_made(), now_s=NOW_S + age_s)


@pytest.mark.parametrize(
    "timestamp",
    [None, "", "soon", "2026-13-01T00:00:00.000Z", "2026-11-01", "0000-01-01T00:00:00Z", "2026-11-01T08:00:01.000Z\n",
     "٢٠٢٦-11-01T08:00:01.000Z", "2026-11-01T08:00:01+00:00", "1790000000", "2026-11-01T25:00:01Z"],
)  # fmt: skip
def test_a_time_that_is_none_is_refused(timestamp):
    assert "Timestamp" in _refused(_made(Timestamp=timestamp))


def test_fractions_of_a_second_count():
    assert _verify(_made(Timestamp=iso(NOW_S + 0.25))) == NOW_S * 1000 + 250


def test_raw_message_delivery_is_named():
    body = json.dumps(ONE).encode()

    for told in ({}, {"x-amz-sns-rawdelivery": ["true"]}):
        with pytest.raises(SignatureInvalid, match="raw message delivery"):
            ses.verify(told, body, [TOPIC], NOW_S, CERTIFICATE)


# -- what confirms a subscription


def test_the_confirmation_is_a_url_of_our_own_making():
    post = subscription(SubscribeURL="http://169.254.169.254/latest/meta-data/", Token="a b")

    with pytest.raises(PayloadInvalid):
        sns.confirmation_url(sns.read_envelope(json.dumps(post).encode()))
    assert (
        f"{HOST}/?Action=ConfirmSubscription&TopicArn=arn%3Aaws%3Asns%3Aus-east-1%3A111111111111%3Ainbound&Token={TOKEN}"
        == sns.confirmation_url(sns.read_envelope(json.dumps(post | {"Token": TOKEN}).encode()))
    )
    assert sns.confirmation_url({"TopicArn": TOPIC, "Token": "a&b=/#?%"}).endswith("&Token=a%26b%3D%2F%23%3F%25")


@pytest.mark.parametrize("token", ["", "a b", "a\n", "é", "x" * 2049])
def test_a_token_of_another_shape_confirms_nothing(token):
    with pytest.raises(PayloadInvalid, match="Token"):
        sns.confirmation_url({"TopicArn": TOPIC, "Token": token})


# -- the samples


def _samples():
    return sorted(path.stem for path in SAMPLES.glob("*.json") if not path.stem.endswith(".expected"))


@pytest.mark.parametrize("name", _samples())
def test_sample(name):
    sample, expected = (json.loads((SAMPLES / f"{name}{kind}.json").read_text("utf-8")) for kind in ("", ".expected"))
    post = signed(envelope(sample["message"], at_s=NOW_S, **sample["envelope"]))
    body = json.dumps(post).encode()

    assert _verify(post) == NOW_S * 1000
    if "reject" in expected:
        with pytest.raises(PayloadInvalid, match=expected["reject"]):
            ses.read({}, body)
    else:
        stored = ses.stored_object(body)
        assert expected["messages"] == [
            {"envelope_to": each.envelope_to, "envelope_from": each.envelope_from,
             "raw_base64": base64.b64encode(each.raw).decode()} for each in ses.read({}, body)]  # fmt: skip
        assert expected["stored"] == (stored and [stored.bucket, stored.key])


def test_there_are_samples():
    assert len(_samples()) > 20


def test_an_error_names_no_address():
    for name in ("bounce", "complaint", "event_published"):
        sample = json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))
        with pytest.raises(PayloadInvalid, match="receipt rule") as error:
            ses.read({}, json.dumps(envelope(sample["message"])).encode())

        assert "@" not in str(error.value)


@pytest.mark.parametrize(
    "action",
    [{"bucketName": "b/../c", "objectKey": "k"}, {"bucketName": "arn:aws:s3:us-east-1:2:accesspoint/x", "objectKey": "k"},
     {"bucketName": "mail", "objectKey": ""}, {"bucketName": "mail", "objectKey": "k" * 1025},
     {"bucketName": "mail\n", "objectKey": "k"},
     {"bucketName": 3, "objectKey": "k"}, {"bucketName": "mail"}, {}, None, [], "S3"],
)  # fmt: skip
def test_an_odd_place_is_no_stored_object(action):
    made = received("a@b")
    made["receipt"]["action"] = action
    body = json.dumps(envelope(made)).encode()

    assert ses.stored_object(body) is None
    assert len(ses.read({}, body)) == 1


# -- any shape


@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"null", b"42", b'"x"', b"[]", b"{}", b"{", b"[" * 100_000, b'{"Type":' * 100_000, b"9" * 5000, b"\xff\xfe",
     b'{"Type": "Notification"}', b'{"Type": "Other", "Message": "x"}', b'{"Type": ["Notification"], "Message": "x"}',
     b'{"Type": "Notification", "Message": {"a": 1}}', b'{"Type": "Notification", "Message": "\\ud800"}',
     b" " * (2 << 20) + b"{}",
     b'{"Type": "Notification", "Message": "x", "TopicArn": 3}', b'{"Type": "Notification", "Message": "x", "Token": []}'],
)  # fmt: skip
def test_what_is_no_envelope_is_given_up(body):
    with pytest.raises(PayloadInvalid):
        ses.verify({}, body, [TOPIC], NOW_S, CERTIFICATE)
    with pytest.raises(PayloadInvalid):
        ses.read({}, body)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.text("\ud800\udfff\0é@\r\n", max_size=4),
    st.sampled_from(["Notification", "SubscriptionConfirmation", "Received", "BASE64",
    "eA==", TOPIC, "S3", CERTIFICATE_URL, "a@b"]),
)  # fmt: skip
NAMES = st.sampled_from(
    ["Type", "Message", "TopicArn", "Timestamp", "Subject", "Token", "Signature", "SignatureVersion",
     "notificationType", "mail",
     "receipt", "recipients", "action", "encoding", "content", "source", "headers", "name", "value", "bucketName",
     "objectKey", "x"]
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=15,
)


def _each_is_rejected_or_read(body):
    told = {"content-type": ["text/plain"]}
    try:
        assert all(isinstance(each.raw, bytes) and isinstance(each.envelope_to, str) for each in ses.read(told, body))
        for each in ses.read(told, body):
            message.read(each.raw, source="x", envelope_to=each.envelope_to, envelope_from=each.envelope_from)
        ses.stored_object(body)
    except Rejected:
        pass
    with pytest.raises(Rejected):
        ses.verify(told, body, [TOPIC], NOW_S, CERTIFICATE)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_gives_messages_or_is_rejected(value):
    _each_is_rejected_or_read(json.dumps(value).encode())


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_any_envelope_gives_messages_or_is_rejected(fields):
    _each_is_rejected_or_read(json.dumps(_made() | {"Signature": "eA=="} | fields).encode())


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(NAMES, JSON, max_size=3),
    st.dictionaries(NAMES, JSON, max_size=4),
    st.dictionaries(NAMES, JSON, max_size=4),
)
def test_any_notification_gives_messages_or_is_rejected(top, mail, receipt):
    made = received("a@b") | top
    made["mail"] = mail | {"source": "x@y"} if "mail" not in top else top["mail"]
    made["receipt"] = {"recipients": ["a@b"]} | receipt if "receipt" not in top else top["receipt"]

    _each_is_rejected_or_read(json.dumps(envelope(made, Signature="eA==")).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.text(max_size=30), st.text(max_size=80), st.text(max_size=80))
def test_any_field_of_a_signed_post_is_verified_or_rejected(raw, text, topic, url):
    for fields in (
        {"Message": text},
        {"TopicArn": topic},
        {"SigningCertURL": url},
        {"Timestamp": text},
        {"Subject": text},
    ):
        try:
            assert _verify(_made(**fields), proofs=[TOPIC]) == NOW_S * 1000
        except Rejected:
            pass
    with pytest.raises(Rejected):
        _verify(_made(), pem=raw)
