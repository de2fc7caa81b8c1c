"""Every webhook body of these folders of tests/webhooks gives what the file beside it says."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from handlers import decision, message
from handlers.decision import Policy
from handlers.errors import PayloadInvalid
from handlers.providers import PROVIDERS, provider
from handlers.tag import AddressTemplate, Keyring

FOLDER = Path(__file__).parents[1] / "webhooks"
KEYS = Keyring((b"unsubd test messages: not a secret",))
TEMPLATE = AddressTemplate.parse("u+{tag}@unsub.example.com")
# The others' samples have tests of their own: `test_ses.py`, `test_further_providers.py`.
FOLDERS = ("mailgun", "postmark", "postal", "cloudmailin")
SAMPLES = [
    pytest.param(path, id=f"{name}/{path.stem}")
    for name in FOLDERS
    for path in sorted((FOLDER / name).iterdir())
    if not path.name.endswith(".expected.json")
]
KNOWN = {
    "content_type", "headers", "envelope_to", "envelope_from", "raw_sha256", "fields", "body", "requests", "reject", "note",
}  # fmt: skip


def _expected(path):
    return json.loads(path.with_name(f"{path.stem}.expected.json").read_text("utf-8"))


def _read(path):
    expected = _expected(path)
    headers = {name.lower(): [value] for name, value in expected.get("headers", {}).items()}
    if "content_type" in expected:
        headers["content-type"] = [expected["content_type"]]
    return provider(path.parent.name).read(headers, path.read_bytes())


def _letters(path):
    return [
        message.read(each.raw, source="test", envelope_to=each.envelope_to, envelope_from=each.envelope_from)
        for each in _read(path)
    ]


def test_every_folder_is_a_providers_and_every_expectation_has_its_sample():
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    samples = {(sample.values[0].parent, sample.values[0].stem) for sample in SAMPLES}
    expectations = {
        (path.parent, path.name.removesuffix(".expected.json"))
        for name in FOLDERS
        for path in (FOLDER / name).glob("*.expected.json")
    }

    assert folders <= set(PROVIDERS)
    assert expectations == samples


@pytest.mark.parametrize("path", SAMPLES)
def test_sample_gives_its_envelope_or_is_given_up(path):
    expected = _expected(path)

    assert set(expected) <= KNOWN
    if "reject" in expected:
        with pytest.raises(PayloadInvalid, match=expected["reject"]):
            _read(path)
    else:
        found = _read(path)
        assert expected["envelope_to"] == [each.envelope_to for each in found]
        assert {expected["envelope_from"]} >= {each.envelope_from for each in found}


@pytest.mark.parametrize("path", SAMPLES)
def test_sample_keeps_its_octets_its_fields_and_its_text(path):
    expected = _expected(path)
    for each in [] if "reject" in expected else _read(path):
        letter = message.read(each.raw, source="test")
        digest = sha256(each.raw).hexdigest()

        assert expected.get("raw_sha256", digest) == digest
        assert {name: letter.text(name) for name in expected.get("fields", {})} == expected.get("fields", {})
        assert expected.get("body", "").encode() in letter.body


@pytest.mark.parametrize("path", SAMPLES)
def test_sample_asks_for_what_the_file_beside_it_says(path):
    expected = _expected(path)
    if "requests" in expected:
        decided = [decision.decide(letter, KEYS, Policy((TEMPLATE,)), {}) for letter in _letters(path)]

        assert expected["requests"] == [
            [each.sender, each.group, each.recipient] for one in decided for each in one.requests
        ]
