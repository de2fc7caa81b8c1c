"""The conformance set beside the project: tag vectors, the sample mails, and the webhook samples and signatures."""

import csv
import hashlib
import json
import re
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from handlers import decision, message, tag
from handlers.errors import PayloadInvalid, Rejected, SignatureInvalid
from handlers.providers import (
    PROVIDERS,
    forwardemail,
    mailersend,
    mailgun,
    mailtrap,
    mandrill,
    postal,
    relay,
    resend,
    sendgrid,
    ses,
    sns,
)
from handlers.request import Action
from handlers.tag import AddressTemplate, Keyring, StoredTag, Tag, mint

KEYS = Keyring((b"re-tags the shared sample mails..",))
TEMPLATE = AddressTemplate.parse("unsub+{tag}@unsub.example.com")
JANE, SECOND, OTHER = (Tag("acme", group, "jane@example.com") for group in (12, 13, 14))


# -- tag-vectors.json


@pytest.fixture
def vectors(shared):
    return json.loads((shared / "tag-vectors.json").read_text("utf-8"))


@pytest.fixture
def masters(vectors):
    return tuple(bytes.fromhex(master) for master in vectors["masters_hex"])


@pytest.fixture
def stored(vectors):
    asked = {case["mac26"]: Tag(case["sender"], case["group"], case["canonical"]) for case in vectors["cases"]}
    return {StoredTag(ref): row for ref, row in asked.items()}


def test_sender_keys_are_derived_as_given(vectors, masters):
    derived = {sender: Keyring(masters).sender_keys(sender)[0].hex() for sender in vectors["sender_keys_hex"]}

    assert vectors["sender_keys_hex"] == derived


def test_every_tag_is_minted_as_given(vectors, masters):
    for case in vectors["cases"]:
        asked = Tag(case["sender"], case["group"], case["recipient"])
        minted = mint(Keyring(masters[case["master"] :]), asked, AddressTemplate.parse(case["template"]))

        assert tag.Minted(case["tag"], case["address"], case["stored"], case["mac26"]) == minted


def test_every_tag_is_read_as_given(vectors, masters, stored):
    for case in vectors["cases"]:
        expected = Tag(case["sender"], case["group"], case["canonical"])

        assert tag.Reading(expected, "", case["master"]) == tag.read(case["address"], Keyring(masters), stored)


def test_every_refused_tag_is_refused(vectors, masters, stored):
    for text, why in vectors["refused"]:
        for address in (text, f"{text}@unsub.example.com"):
            with pytest.raises(Rejected):
                pytest.fail(f"{why}: read as {tag.read(address, Keyring(masters), stored)}")


# -- samples/mail


@pytest.fixture
def samples(shared):
    folder = shared / "samples" / "mail"
    with (folder / "MANIFEST.tsv").open(encoding="utf-8", newline="") as manifest:
        return [(row, (folder / row["path"]).read_bytes()) for row in csv.DictReader(manifest, delimiter="\t")]


def _right(row):
    """Every outcome that the manifest calls right: the column's word, and the alternatives that its note names."""
    right = {row["right outcome"].split(" ")[0]}
    if "either quarantine or ignore" in row["note"]:
        right |= {outcome.value for outcome in decision.Outcome if outcome.value.startswith(("quarantine", "ignore"))}
    elif "either quarantine class" in row["note"]:
        right |= {outcome.value for outcome in decision.Outcome if outcome.quarantined}
    elif re.search("either|equally right", row["note"]):
        right |= set(re.findall(r"(?:ignore|quarantine):[a-z-]+", row["note"]))
    return right


def _retagged(raw):
    """Put real tags where NOTICE.md says that the placeholders are."""
    for placeholder, named in ((b"TAG2", SECOND), (b"OTHER", OTHER), (b"TAG", JANE)):
        raw = raw.replace(placeholder, mint(KEYS, named, TEMPLATE).tag.encode())
    return raw.replace(b"+tag@", b"+" + mint(KEYS, JANE, TEMPLATE).tag.lower().encode() + b"@")


def _decide(raw, envelope_to=None):
    return decision.decide(
        message.read(raw, source="sample", envelope_to=envelope_to), KEYS, decision.Policy((TEMPLATE,)), {}
    )


def _own(row):
    return row["path"].startswith("reconstructed/")


def test_every_sample_mail_has_a_right_outcome(samples):
    wrong = [
        (row["path"], decided.outcome.value, _right(row))
        for row, raw in samples
        if (decided := _decide(_retagged(raw) if _own(row) else raw)).outcome.value not in _right(row)
    ]

    assert len(samples) > 140
    assert wrong == []


def test_every_sample_request_names_the_subscriber_of_its_tag_and_nobody_else(samples):
    named = {row["path"]: _decide(_retagged(raw)).requests for row, raw in samples if _own(row)}

    for path, requests in named.items():
        rights = [row["right outcome"] for row, _ in samples if row["path"] == path]
        honoured = rights[0].startswith("honour") or rights == ["complaint"]
        expected = [JANE, SECOND] if "several_tags" in path else [JANE] if honoured else []
        assert (path, expected) == (path, [Tag(each.sender, each.group, each.recipient) for each in requests])


_EMBEDDED = re.compile(rb"(content-type: message/rfc822.*?(\r\n|\r|\n)\2)", re.I | re.S)


def test_every_sample_complaint_is_attributed_once_the_returned_mail_holds_a_tag(samples):
    header = f"List-Unsubscribe: <mailto:{mint(KEYS, JANE, TEMPLATE).address}>".encode()
    found = {}
    for row, raw in samples:
        if row["right outcome"] == "complaint" and "sisimai" in row["path"]:
            tagged = _EMBEDDED.sub(rb"\1" + header + rb"\2", raw, count=1)
            decided = _decide(tagged)
            found[row["path"]] = [(each.action, each.recipient) for each in decided.requests]

    assert len(found) >= 7
    assert {path: each for path, each in found.items() if each != [(Action.COMPLAINT, JANE.recipient)]} == {}


def test_a_request_without_its_tag_is_never_honoured(samples):
    honoured = [row["path"] for row, raw in samples if _decide(raw).requests]

    assert honoured == []


def test_a_valid_envelope_recipient_never_turns_a_machines_mail_into_a_request(samples):
    for row, raw in samples:
        right = {outcome for outcome in _right(row) if not outcome.startswith("quarantine")}
        if right and right == _right(row) and not row["right outcome"].startswith("honour"):
            decided = _decide(_retagged(raw), envelope_to=mint(KEYS, JANE, TEMPLATE).address)

            assert decided.outcome.value in right, row["path"]


def test_a_valid_envelope_recipient_makes_a_request_of_any_persons_mail(samples):
    persons = ("other", "malformed", "pgp", "forward", "eai", "human-reply")
    left = [
        row["path"]
        for row, raw in samples
        if row["kind"] in persons and not _decide(raw, envelope_to=mint(KEYS, JANE, TEMPLATE).address).requests
    ]

    assert left == []


# -- samples/webhooks


@pytest.fixture
def webhooks(shared):
    folder = shared / "samples" / "webhooks"
    index = json.loads((folder / "index.json").read_text("utf-8"))
    modules = PROVIDERS | {"relay_rfc822": relay, "amazon_ses": ses}
    fetched = "resend/raw_download.eml"  # what the API gives, nothing that is posted
    return [
        (modules[row["provider"]], row, {"content-type": [row["content_type"]]}, (folder / row["path"]).read_bytes())
        for row in index
        if row["provider"] in modules and row["path"] != fetched and not _is_confirmation(row)
    ]


def _is_confirmation(row):
    return "sns_type" in row["expect"]  # no mail: the signature vectors judge them


def test_every_webhook_sample_gives_its_envelope(webhooks):
    for provider, row, headers, body in webhooks:
        expect = row["expect"]
        if "reject" not in expect:
            messages = provider.read(headers, body)

            told = [None] if expect["envelope_to"] is None else expect["envelope_to"]
            assert told == [each.envelope_to for each in messages], row["path"]
            assert {expect["envelope_from"]} >= {each.envelope_from for each in messages}, row["path"]


def test_every_malformed_webhook_sample_is_given_up(webhooks):
    malformed = [(provider, headers, body) for provider, row, headers, body in webhooks if "reject" in row["expect"]]

    assert len(malformed) >= 3
    for provider, headers, body in malformed:
        with pytest.raises(PayloadInvalid):
            provider.read(headers, body)


def test_every_webhook_sample_keeps_its_octets_and_its_headers(webhooks):
    for provider, row, headers, body in webhooks:
        expect = row["expect"]
        for found in provider.read(headers, body) if "reject" not in expect else ():
            read = message.read(found.raw, source="sample")

            if provider is not ses or expect["has_raw_mime"]:  # else it is in S3, and the sample tells no headers
                assert (expect["header_from"] or "") in read.value("from"), row["path"]
            assert expect.get("message_id", read.value("message-id")) == read.value("message-id")
            if "raw_sha256" in expect:
                assert expect["raw_sha256"] == hashlib.sha256(found.raw).hexdigest()


def test_without_an_envelope_the_headers_name_the_candidates(webhooks):
    for provider, row, headers, body in webhooks:
        for address in row["expect"].get("fallback_to_header", []):
            [found] = provider.read(headers, body)

            assert address in {each.address for each in message.read(found.raw, source="sample").candidates}


SCHEMES = {
    "sendgrid-ecdsa-p256-sha256": sendgrid,
    "standard-webhooks-v1": relay,
    "svix-v1": resend,
    "mandrill-hmac-sha1-base64": mandrill,
    "forwardemail-hmac-sha256-hex over raw body": forwardemail,
    "mailersend-hmac-sha256-hex over raw body": mailersend,
    "mailtrap-hmac-sha256-hex over raw body": mailtrap,
}


@pytest.mark.parametrize("valid", [True, False])
def test_every_signature_vector_is_judged_as_given(shared, valid):
    folder = shared / "samples" / "webhooks"
    judged = set()
    for vector in json.loads((folder / "signature_vectors.json").read_text("utf-8")):
        if vector["scheme"] in SCHEMES and vector["valid"] is valid:
            headers, body = _posted(vector, folder)
            assert valid == _verifies(SCHEMES[vector["scheme"]], headers, body, _proof(vector)), vector
            judged.add(vector["scheme"])

    assert judged == {scheme for scheme in SCHEMES if valid or not scheme.startswith("mandrill")}


def _proof(vector):
    secret = vector.get("public_key_base64_der_spki") or vector["secret"]
    return f"{secret}@{vector['url']}" if "url" in vector else secret


def _posted(vector, folder):
    headers = {name.lower(): [value] for name, value in vector.get("headers", {}).items()}
    if vector["scheme"].startswith("mandrill"):
        headers = {"x-mandrill-signature": [vector["signature"]]}
    if "post_params" in vector:  # described, not given
        welcome = (folder / "relay_rfc822" / "welcome.eml").read_bytes().decode()
        events = [{"event": "inbound", "msg": {"raw_msg": welcome}}]
        posted = json.dumps(events, separators=(",", ":"), ensure_ascii=False)
        assert vector["post_params_sha256"] == hashlib.sha256(posted.encode()).hexdigest()
        return headers, urlencode({"mandrill_events": posted}).encode()
    return headers, (folder / vector["body_file"]).read_bytes() if "body_file" in vector else vector["body"].encode()


@pytest.mark.parametrize("valid", [True, False])
def test_every_mailgun_vector_is_judged_as_given(shared, valid):
    vectors = json.loads((shared / "samples" / "webhooks" / "signature_vectors.json").read_text("utf-8"))
    chosen = [row for row in vectors if row["scheme"].startswith("mailgun") and row["valid"] is valid]

    assert chosen
    for vector in chosen:
        body = urlencode({name: vector[name] for name in ("timestamp", "token", "signature")}).encode()
        assert valid == _verifies_at(mailgun, {}, body, vector["secret"], int(vector["timestamp"]))


@pytest.mark.parametrize("valid", [True, False])
def test_every_postal_vector_is_judged_as_given(shared, valid):
    folder = shared / "samples" / "webhooks"
    vectors = json.loads((folder / "signature_vectors.json").read_text("utf-8"))
    chosen = [row for row in vectors if row["scheme"].startswith("postal") and row["valid"] is valid]

    assert chosen
    for vector in chosen:
        headers = {name.lower(): [value] for name, value in vector["headers"].items()}
        body = (folder / vector["body_file"]).read_bytes()
        if valid:
            assert postal.verify(headers, body, [vector["public_key_pem"]], 0) is None
        else:
            with pytest.raises(SignatureInvalid):
                postal.verify(headers, body, [vector["public_key_pem"]], 0)


def test_every_mailgun_sample_is_signed_with_the_key_it_names(webhooks):
    for provider, row, headers, body in webhooks:
        if provider is mailgun:
            timestamp = row["expect"].get("received_at") or int(re.search(rb"timestamp\D+(\d+)", body)[1])
            assert _verifies_at(mailgun, headers, body, row["expect"]["signing_key"], timestamp), row["path"]


def _verifies_at(provider, headers, body, secret, now_s):
    try:
        return now_s * 1000 == provider.verify(headers, body, [secret], now_s)
    except SignatureInvalid:
        return False


def _verifies(provider, headers, body, secret):
    signed = [int(values[0]) for name, values in headers.items() if name.endswith("-timestamp")]
    now_s, signed_ms = (signed[0], signed[0] * 1000) if signed else (0, None)
    try:
        return signed_ms == provider.verify(headers, body, [secret], now_s)
    except SignatureInvalid:
        return False


# -- samples/webhooks: Amazon SNS


@pytest.fixture
def sns_vectors(shared):
    folder = shared / "samples" / "webhooks"
    found = []
    for vector in json.loads((folder / "signature_vectors.json").read_text("utf-8")):
        if vector["scheme"].startswith("sns-"):
            body = (folder / vector["body_file"]).read_bytes() if "body_file" in vector else vector["body"].encode()
            found.append((vector, body, (folder / vector["certificate_file"]).read_bytes()))
    return found


def test_every_sns_vector_is_judged_as_given(sns_vectors):
    for vector, body, certificate in sns_vectors:
        envelope = sns.read_envelope(body)
        now_s = datetime(2026, 11, 1, 8, tzinfo=UTC).timestamp()  # awsgem's posts are older than their certificate
        try:
            sns.require_signature(envelope, sns.public_key(certificate, now_s))
        except SignatureInvalid:
            assert not vector["valid"], vector
        else:
            assert vector["valid"], vector

    assert [sum(vector["valid"] is valid for vector, _, _ in sns_vectors) for valid in (True, False)] == [4, 3]


def test_every_sns_notification_of_the_vectors_verifies_whole_and_gives_its_envelope(sns_vectors):
    now_s = datetime(2026, 11, 1, 9, tzinfo=UTC).timestamp()
    for vector, body, certificate in sns_vectors:
        if "headers" in vector and vector["valid"]:
            headers = {name: [value] for name, value in vector["headers"].items()}
            topic = vector["headers"]["x-amz-sns-topic-arn"]
            [found] = ses.read(headers, body)

            assert ses.verify(headers, body, [topic], now_s, certificate) == (now_s - 3599) * 1000
            assert ([found.envelope_to], found.envelope_from) == tuple(vector["expect"].values())


def test_one_changed_octet_of_an_sns_vector_is_refused(sns_vectors):
    now_s = datetime(2026, 11, 1, 9, tzinfo=UTC).timestamp()
    for vector, body, certificate in sns_vectors:
        if vector["valid"] and "headers" in vector:
            topic = vector["headers"]["x-amz-sns-topic-arn"]
            for field in (b'"Message"', b'"MessageId"', b'"Timestamp"', b'"Signature"'):
                at = body.index(field) + len(field) + 10
                changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
                with pytest.raises(Rejected):
                    ses.verify({}, changed, [topic], now_s, certificate)


def test_the_trap_in_the_ses_samples_is_nobodys_recipient(webhooks):
    for provider, row, headers, body in webhooks:
        if provider is ses:
            others = {*row["expect"]["mail_destination"]} - {*row["expect"]["envelope_to"]}

            assert not others & {each.envelope_to for each in ses.read(headers, body)}
