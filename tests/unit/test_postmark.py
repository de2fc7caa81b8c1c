"""Postmark: its only proof. Shapes are cases in tests/webhooks."""

import json

import pytest

from handlers.errors import SignatureInvalid
from handlers.providers import postmark


def test_secrets_may_rotate():
    headers = {"authorization": ["Basic dTpw"]}

    assert postmark.verify(headers, b"", ["basic:u:older", "basic:u:p"], 0) is None


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": []}, {"authorization": ["Basic dTpx"]}, {"authorization": ["Basic dTpw"] * 2},
     {"authorization": ["Basic é"]}, {"authorization": ["Bearer dTpw"]}, {"x-postmark-signature": ["p"]}],
)  # fmt: skip
def test_nothing_else_is_a_proof(headers):
    with pytest.raises(SignatureInvalid):
        postmark.verify(headers, b"", ["basic:u:p", "p"], 0)


def test_a_raw_mail_of_megabytes_is_kept():
    raw = "Subject: x\n\n" + "Größe\n" * 300_000
    body = json.dumps({"OriginalRecipient": "<a@b>", "RawEmail": raw}).encode()

    [found] = postmark.read({}, body)

    assert (found.raw, found.envelope_to, found.envelope_from) == (raw.encode(), "a@b", None)
