"""Webhook endpoints: what they keep of a secret, what a rotation does to it, and what proves a post."""

import base64
from unittest.mock import patch

import fakeredis
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handlers.errors import Rejected, SignatureInvalid
from handlers.providers import PROVIDERS
from handlers.providers.samples import SAMPLES
from handlers.providers.setup import SETUPS
from handlers.providers.webhook import shared_secret_matches
from handlers.tag import Keyring
from worker import hooks
from worker.hooks import Hook, Hooks
from worker.settings import load_settings

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRET = "whsec_" + base64.b64encode(b"the provider's own secret").decode()


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


def kept(server: fakeredis.FakeServer, *masters: bytes, **environ: str) -> Hooks:
    given = {f"UNSUBD_{name.upper()}": value for name, value in environ.items()}
    return Hooks(fakeredis.FakeRedis(server=server), load_settings(given), Keyring(masters or (OLD,)))


def dump(server: fakeredis.FakeServer) -> bytes:
    rows: dict[bytes, bytes] = fakeredis.FakeRedis(server=server).hgetall("unsubd:hooks")
    return b"\n".join(each for row in rows.items() for each in row)


def test_an_endpoint_is_found_by_provider_and_name(server: fakeredis.FakeServer) -> None:
    found = kept(server, in_relay="bearer:a", in_sendgrid_eu="basic:u:p")
    found.add(Hook("relay", "eu", (SECRET,)))

    assert found.find("relay", "default") == Hook("relay", "default", ("bearer:a",))
    assert found.find("relay", "EU") == Hook("relay", "eu", (SECRET,))
    assert found.find("sendgrid", "eu") == Hook("sendgrid", "eu", ("basic:u:p",))
    assert found.find("sendgrid", "default") is None
    assert [(each.provider, each.name) for each in found.every()] == [
        ("relay", "default"), ("relay", "eu"), ("sendgrid", "eu"),
    ]  # fmt: skip


def test_settings_and_hook_add_prove_the_same_endpoint(server: fakeredis.FakeServer) -> None:
    found = kept(server, in_relay="bearer:a")
    found.add(Hook("relay", "default", (SECRET,), pass_on_url="https://app.example.com/in"))

    hook = found.find("relay", "default")

    assert hook == Hook("relay", "default", ("bearer:a", SECRET), pass_on_url="https://app.example.com/in")


@pytest.mark.parametrize("proof", [SECRET, "bearer:s3cret-token", "basic:unsubd:s3cret-password", "token:s3cret-token"])
def test_no_secret_lies_readable_in_redis(server: fakeredis.FakeServer, proof: str) -> None:
    kept(server).add(Hook("relay", "default", (proof,)))

    for part in (proof, proof.rpartition(":")[2]):
        assert part.encode() not in dump(server)
    assert proof not in repr(sorted(kept(server).every()[0].proofs)) or not proof.startswith(("bearer", "basic"))


def test_a_second_proof_is_added_for_a_rotation(server: fakeredis.FakeServer) -> None:
    found = kept(server)
    for proof in ("bearer:one", SECRET, "bearer:one"):
        found.add(Hook("relay", "default", (proof,)))

    hook = found.find("relay", "default")

    assert hook is not None
    assert len(hook.proofs) == 2
    assert shared_secret_matches({"authorization": ["Bearer one"]}, hook.proofs)
    assert not shared_secret_matches({"authorization": ["Bearer two"]}, hook.proofs)


def test_a_basic_secret_is_compared_by_its_digest(server: fakeredis.FakeServer) -> None:
    kept(server).add(Hook("postmark" if "postmark" in PROVIDERS else "relay", "default", ("basic:unsubd:pässword",)))
    [hook] = kept(server).every()

    for text, matches in (("unsubd:pässword", True), ("unsubd:password", False), ("", False), ("unsubd", False)):
        given = base64.b64encode(text.encode()).decode()
        assert shared_secret_matches({"authorization": [f"Basic {given}"]}, hook.proofs) is matches


def test_a_secret_survives_the_rotation_of_the_master_keys(server: fakeredis.FakeServer) -> None:
    kept(server, OLD).add(Hook("relay", "default", (SECRET,)))

    assert kept(server, OLD, NEW).every()[0].proofs == (SECRET,)  # sealed under both from now on
    assert kept(server, NEW).every()[0].proofs == (SECRET,)


def test_what_is_known_is_at_most_5_seconds_old(server: fakeredis.FakeServer) -> None:
    found, elsewhere = kept(server), kept(server)
    assert found.find("relay", "default") is None
    elsewhere.add(Hook("relay", "default", (SECRET,)))
    assert found.find("relay", "default") is None

    with patch.object(hooks.time, "monotonic", return_value=hooks.time.monotonic() + 6):
        assert found.find("relay", "default") is not None


def test_one_that_is_removed_proves_nothing(server: fakeredis.FakeServer) -> None:
    found = kept(server)
    found.add(Hook("relay", "default", (SECRET,)))

    assert [found.remove("relay", "default"), found.remove("relay", "default")] == [True, False]
    assert found.find("relay", "default") is None


@pytest.mark.parametrize(
    ("hook", "complaint"),
    [
        (Hook("nobody", "default", (SECRET,)), "^provider 'nobody'"),
        (Hook("relay", "a/b", (SECRET,)), "^name 'a/b'"),
        (Hook("relay", "", (SECRET,)), "^name ''"),
        (Hook("relay", "eu", (SECRET,), pass_on_url="ftp://x"), "^pass-on-url"),
        (Hook("relay", "eu", (SECRET,), pass_on_url="https://"), "^pass-on-url"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(server: fakeredis.FakeServer, hook: Hook, complaint: str) -> None:
    with pytest.raises(Rejected, match=complaint):
        kept(server).add(hook)

    assert dump(server) == b""


def test_a_test_of_ours_is_proved_for_a_minute(server: fakeredis.FakeServer) -> None:
    found = kept(server)
    token = found.test_token()

    assert found.is_test([f"Bearer {token}"])
    assert 0 < fakeredis.FakeRedis(server=server).ttl(next(fakeredis.FakeRedis(server=server).scan_iter())) <= 60
    for header in (
        [],
        [f"Basic {token}"],
        ["Bearer "],
        [f"Bearer {token}x"],
        [f"Bearer {token}"] * 2,
        ["Bearer \udc80"],
    ):
        assert not found.is_test(header)


def test_every_provider_has_its_setup_and_its_sample() -> None:
    assert set(PROVIDERS) <= set(SETUPS)
    assert set(PROVIDERS) <= set(SAMPLES)


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_sample_is_what_its_provider_reads(name: str) -> None:
    kind, body = SAMPLES[name]("u+tag@unsub.example.com")

    [found] = PROVIDERS[name].read({"content-type": [kind]}, body)

    assert found.envelope_to == "u+tag@unsub.example.com"
    with pytest.raises(SignatureInvalid):
        PROVIDERS[name].verify({"content-type": [kind]}, body, [SECRET], 1_700_000_000.0)


# --- the form of a proof

ELLIPTIC, RSA = (
    base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048))
)
ARN = "arn:aws:sns:eu-west-1:123456789012:unsub"


@pytest.mark.parametrize(
    ("provider", "proof"),
    [
        ("ses", ARN), ("ses", "arn:aws-us-gov:sns:us-gov-west-1:123456789012:unsub.fifo"), ("ses", "basic:u:p"),
        ("resend", SECRET), ("resend", "basic:u:p"), ("sendgrid", ELLIPTIC), ("sendgrid", "bearer:t"),
        ("postal", RSA), ("postal", f"p={RSA};"), ("mandrill", "KEY@https://unsub.example.com/in/mandrill"),
        ("relay", SECRET), ("relay", SECRET.removeprefix("whsec_")), ("mailgun", "any text"), ("mailtrap", "api:TOKEN"),
        ("brevo", "header:x-secret:v"),
    ],
)  # fmt: skip
def test_a_proof_of_its_providers_form_is_kept(server: fakeredis.FakeServer, provider: str, proof: str) -> None:
    assert len(kept(server).add(Hook(provider, "default", (proof,))).proofs) == 1


@pytest.mark.parametrize(
    ("provider", "proof", "expected"),
    [
        ("ses", "my-topic", "the topic's ARN"), ("ses", "arn:aws:sns:eu-west-1:12345:unsub", "the topic's ARN"),
        ("ses", "arn:aws:s3:::bucket", "the topic's ARN"), ("ses", "bearer:t", "the topic's ARN"),
        ("resend", "re_123456789", "whsec_ and base64"), ("resend", "whsec_!", "whsec_ and base64"),
        ("resend", "whsec_c2hvcnQ=", "whsec_ and base64"), ("sendgrid", "SG.abcdef.ghijkl", "public key"),
        ("sendgrid", RSA, "public key"), ("sendgrid", ELLIPTIC[:-8], "public key"), ("postal", ELLIPTIC, "RSA"),
        ("mandrill", "KEY", "KEY@URL"), ("relay", "my secret", "Standard Webhooks"), ("relay", "basic:u", "USER:PASSWORD"),
        ("brevo", "header:x", "NAME:VALUE"), ("relay", "bearer:", "bearer:TOKEN"),
    ],
)  # fmt: skip
def test_what_can_be_no_proof_of_its_provider_is_refused(
    server: fakeredis.FakeServer, provider: str, proof: str, expected: str
) -> None:
    with pytest.raises(Rejected, match=rf"^proof of {len(proof)} characters for {provider}: expected .*{expected}"):
        kept(server).add(Hook(provider, "default", (proof,)))

    assert kept(server).every() == []


def test_a_forwarded_post_is_proved_by_its_forwarder(server: fakeredis.FakeServer) -> None:
    assert kept(server).add(Hook("ses", "app", (SECRET,), forwarded=True)).proofs == (SECRET,)
    with pytest.raises(Rejected, match="Standard Webhooks"):
        kept(server).add(Hook("ses", "app", (ARN,), forwarded=True))
