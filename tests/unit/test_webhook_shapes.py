"""No shape of a body makes a provider raise anything but `Rejected`: damaged samples, and JSON and forms out of nothing."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import message
from handlers.errors import Rejected
from handlers.providers import PROVIDERS
from tests.unit.test_webhook_samples import FOLDER, SAMPLES

NOW_S = 1_795_428_000
PROOFS = ["basic:u:p", "a key", "é", "whsec_eA==", "MIGf", "-----BEGIN PUBLIC KEY-----\nMIGf\n-----END PUBLIC KEY-----"]
NAMES = [
    "recipient", "sender", "timestamp", "token", "signature", "body-mime", "message-headers", "body-plain", "body-html",
    "OriginalRecipient", "RawEmail", "Headers", "ToFull", "MessageID", "RecordType", "Name", "Value", "Email", "TextBody",
    "rcpt_to", "mail_from", "message", "base64", "to", "from", "reply_to", "subject", "plain_body", "event", "payload",
    "envelope", "recipients", "headers", "plain", "envelope[to]", "envelope[recipients][0]", "envelope[recipients]",
    "envelope[from]", "headers[subject]", "headers[received][0]", "headers[]", "envelope[", "email", "x",
]  # fmt: skip
ODD = ["null", "42", "true", '""', '"x"', "[]", "[null]", "[[]]", "[42]", '["a@b"]', "{}", '{"a": 1}', '"\\ud800@b"', "1e999",
       '"\\u0000"', "NaN"]  # fmt: skip
TEXT = st.text(max_size=8) | st.sampled_from(["a@b", "<>", "true", "[]", "\ud800", "Zm9v", "!"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)


def _only_rejected(module, headers, body):
    """Verify and read; whatever is read can be looked at."""
    try:
        module.verify(headers, body, PROOFS, NOW_S)
    except Rejected:
        pass
    try:
        found = module.read(headers, body)
    except Rejected:
        return
    for each in found:
        assert isinstance(each.raw, bytes)
        assert each.envelope_to is None or each.envelope_to.encode() or module is PROVIDERS["sendgrid"]
        message.read(each.raw, source="x", envelope_to=each.envelope_to, envelope_from=each.envelope_from)


@settings(max_examples=300, deadline=None)
@given(OBJECTS | VALUES)
def test_any_json(value):
    for module in PROVIDERS.values():
        _only_rejected(module, {"content-type": ["application/json"]}, json.dumps(value).encode())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.binary(max_size=20) | VALUES.map(lambda each: json.dumps(each).encode()))
    )
)
def test_any_form(fields):
    parts = [b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (n.encode(), v) for n, v in fields]
    for module in PROVIDERS.values():
        _only_rejected(module, {}, urlencode(fields).encode())
        _only_rejected(module, {"content-type": ["multipart/form-data; boundary=b"]}, b"".join([*parts, b"--b--\r\n"]))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=100),
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.text(st.characters(max_codepoint=255)),
)
def test_any_octets(body, kind, value):
    names = ("authorization", "x-postal-signature", "x-postal-signature-256")
    for module in PROVIDERS.values():
        for content_type in (kind, "application/json", "multipart/form-data; boundary=b"):
            _only_rejected(module, {"content-type": [content_type], **{name: [value] for name in names}}, body)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"a":' + b"9" * 5000 + b"}", b"\xff", b"",
                                  b'{"a":"\\ud800"', b"null", b"42", b"[]", b"{}"])  # fmt: skip
@pytest.mark.parametrize("name", sorted(set(PROVIDERS) - {"relay"}))
def test_json_that_says_nothing_is_given_up(name, body):
    with pytest.raises(Rejected):
        PROVIDERS[name].read({"content-type": ["application/json"]}, body)


def _paths(value, path=()):
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _paths(inner, (*path, key))


def _without(text, path, odd):
    value = json.loads(text)
    if not path:
        return odd
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "%odd%"
    return json.dumps(value).replace('"%odd%"', odd)


def _given_in_json(path):
    return path.suffix == ".json" and "reject" not in path.with_name(f"{path.stem}.expected.json").read_text("utf-8")


@pytest.mark.parametrize("path", [each for each in SAMPLES if _given_in_json(each.values[0])])
def test_a_sample_whose_values_are_of_another_type(path):
    text = path.read_text("utf-8-sig")
    for place in _paths(json.loads(text)):
        for odd in ODD:
            headers = {"content-type": ["application/json"]}
            _only_rejected(PROVIDERS[path.parent.name], headers, _without(text, place, odd).encode())


@pytest.mark.parametrize("path", SAMPLES)
def test_a_sample_that_is_cut_or_damaged(path):
    body = path.read_bytes()
    expected = json.loads((FOLDER / path.parent.name / f"{path.stem}.expected.json").read_text("utf-8"))
    headers = {"content-type": [expected.get("content_type", "")]}
    for position in range(0, len(body), max(1, len(body) // 20)):
        for damaged in (
            body[:position],
            body[:position] + b"\xff" + body[position + 1 :],
            body.replace(b"\r\n", b"\n"),
        ):
            _only_rejected(PROVIDERS[path.parent.name], headers, damaged)
