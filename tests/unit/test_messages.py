"""Every message of tests/messages becomes what the file beside it says."""

import json
import re
from pathlib import Path

import pytest

from handlers import decision, message
from handlers.decision import Policy
from handlers.message import FIRST_LOOK_BYTES
from handlers.tag import AddressTemplate, Keyring, StoredTag, Tag, mint

FOLDER = Path(__file__).parents[1] / "messages"
KEYS = Keyring((b"unsubd test messages: not a secret",))
TEMPLATE = AddressTemplate.parse("u+{tag}@unsub.example.com")
NAMES = sorted(path.stem for path in FOLDER.glob("*.eml"))


def _decide(name, size_bytes=None):
    expected = json.loads((FOLDER / f"{name}.expected.json").read_text("utf-8"))
    told = {key: expected[key] for key in ("envelope_to", "envelope_from") if key in expected}
    tags = [Tag(*row) for row in expected.get("rows", [])]
    found = {StoredTag(mint(KEYS, tag, TEMPLATE).ref): tag for tag in tags}
    letter = message.read((FOLDER / f"{name}.eml").read_bytes(), source="test", size_bytes=size_bytes, **told)
    return expected, decision.decide(letter, KEYS, Policy((TEMPLATE,)), found), letter


@pytest.mark.parametrize("name", NAMES)
def test_message_becomes_what_the_file_beside_it_says(name):
    expected, decided, _ = _decide(name)

    assert expected["outcome"] == decided.outcome.value
    assert expected["requests"] == [[each.sender, each.group, each.recipient] for each in decided.requests]
    assert {each.action.value for each in decided.requests} <= {expected.get("action", "unsubscribe")}


@pytest.mark.parametrize("name", NAMES)
def test_evidence_says_what_the_case_is_about(name):
    expected, decided, _ = _decide(name)

    about = {key: expected[key] for key in ("tag_in", "repair", "client") if key in expected}
    assert about == {key: decided.evidence.get(key) for key in about}


@pytest.mark.parametrize("name", NAMES)
def test_line_ends_do_not_change_what_a_message_means(name):
    expected, decided, letter = _decide(name)
    other = re.sub(rb"\r?\n", b"\n" if b"\r\n" in letter.raw else b"\r\n", letter.raw)
    told = {key: expected[key] for key in ("envelope_to", "envelope_from") if key in expected}
    again = message.read(other, source="test", **told)

    assert letter.candidates == again.candidates
    assert decided.outcome is decision.decide(again, KEYS, Policy((TEMPLATE,)), {}).outcome or "rows" in expected


@pytest.mark.parametrize("name", NAMES)
def test_a_first_look_at_a_longer_message_asks_for_more_or_decides_the_same(name):
    _, whole, letter = _decide(name)
    _, first, cut = _decide(name, size_bytes=100_000)

    assert len(letter.raw) < FIRST_LOOK_BYTES
    if not decision.needs_more(cut, KEYS):
        assert (whole.outcome, whole.requests) == (first.outcome, first.requests)


def test_every_message_has_its_expectation_and_every_expectation_its_message():
    expectations = sorted(path.name.removesuffix(".expected.json") for path in FOLDER.glob("*.expected.json"))

    assert expectations == NAMES
    assert len(NAMES) > 30


def test_the_readme_tells_the_key_and_the_template():
    readme = (FOLDER / "README.md").read_text("utf-8")

    assert f"UNSUBD_SECRET_KEYS={KEYS.masters[0].hex()}" in readme
    assert f"UNSUBD_ADDRESS={TEMPLATE.address('{tag}')}" in readme
