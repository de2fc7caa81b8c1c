"""Postal: RSA over the exact body, by -256 where it is sent, with a key in whatever shape it was pasted."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handlers.errors import SignatureInvalid
from handlers.providers import postal

BODY = b'{"rcpt_to": "a@b", "message": "Zm9v\\nYmFy\xff"}'
KEY, OTHER = generate_private_key(65537, 2048), generate_private_key(65537, 2048)
BOTH = ["x-postal-signature-256", "x-postal-signature"]


def _public(key, encoding=Encoding.DER, kind=PublicFormat.SubjectPublicKeyInfo):
    octets = key.public_key().public_bytes(encoding, kind)
    return octets.decode() if encoding is Encoding.PEM else base64.b64encode(octets).decode()


PEM, SPKI = _public(KEY, Encoding.PEM), _public(KEY)


def _signed(names=BOTH, key=KEY):
    algorithms = {"x-postal-signature-256": SHA256(), "x-postal-signature": SHA1()}
    made = {name: [base64.b64encode(key.sign(BODY, PKCS1v15(), algorithms[name])).decode()] for name in names}
    return made | {"x-postal-signature-kid": ["abc"]}


@pytest.mark.parametrize("names", [BOTH, BOTH[:1], BOTH[1:]])
@pytest.mark.parametrize(
    "proof",
    [SPKI, PEM, PEM.strip().replace("\n", "\r\n"), PEM.replace("\n", " "), PEM.replace("\n", "\\n"), f"p={SPKI};"],
)
def test_a_signature_holds_with_the_key_however_it_was_pasted(names, proof):
    assert postal.verify(_signed(names), BODY, [proof], 0) is None


def test_keys_may_rotate():
    proofs = ["basic:a:b", "é", _public(OTHER), _public(ec.generate_private_key(ec.SECP256R1())), PEM]

    assert postal.verify(_signed(), BODY, proofs, 0) is None


@pytest.mark.parametrize(
    "proofs", [[], [""], ["é"], [_public(OTHER)], [SPKI[:-8]], [f"basic:{SPKI}"], ["MIGf"], ["-----BEGIN PUBLIC KEY-----"],
               [_public(ec.generate_private_key(ec.SECP256R1()))]],
)  # fmt: skip
def test_no_other_key_verifies(proofs):
    with pytest.raises(SignatureInvalid, match="public keys"):
        postal.verify(_signed(), BODY, proofs, 0)


@pytest.mark.parametrize("names", [BOTH, BOTH[:1], BOTH[1:]])
@pytest.mark.parametrize("position", range(0, len(BODY), 5))
def test_one_changed_octet_of_the_body_is_refused(names, position):
    body = BODY[:position] + bytes([BODY[position] ^ 1]) + BODY[position + 1 :]

    with pytest.raises(SignatureInvalid):
        postal.verify(_signed(names), body, [SPKI], 0)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "change", [lambda value: [], lambda value: [value, value], lambda value: [value + "é"], lambda value: [""],
               lambda value: ["!"], lambda value: [value[:-4]], lambda value: [value[::-1]],
               lambda value: [value[:60] + "\n" + value[60:]]],
)  # fmt: skip
def test_a_changed_header_is_refused(name, change):
    headers = _signed([name])

    with pytest.raises(SignatureInvalid):
        postal.verify(headers | {name: change(headers[name][0])}, BODY, [SPKI], 0)


@pytest.mark.parametrize("bad", [[""], ["eA=="], _signed(key=OTHER)[BOTH[0]], _signed()[BOTH[1]]])
def test_a_good_sha1_does_not_save_a_bad_sha256(bad):
    with pytest.raises(SignatureInvalid):
        postal.verify(_signed() | {BOTH[0]: bad}, BODY, [SPKI], 0)


def test_a_bad_sha1_does_not_spoil_a_good_sha256():
    assert postal.verify(_signed() | {BOTH[1]: ["eA==", "é"]}, BODY, [SPKI], 0) is None


def test_the_key_is_never_taken_from_the_request():
    headers = _signed(key=OTHER) | {"x-postal-signature-kid": [_public(OTHER)]}

    with pytest.raises(SignatureInvalid):
        postal.verify(headers, BODY, [SPKI], 0)
