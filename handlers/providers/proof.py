"""The form of a proof: what is no proof of its provider is said when it is entered, and not by every post that is refused.

Where a provider's secret has a form, that is checked; of a secret that may be any text nothing can be.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from handlers.errors import Rejected
from handlers.providers.webhook import NO_KEYS

Form = tuple[Callable[[str], bool], str]
"""Whether a proof has it, and what was expected, in words."""

_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?")
_AT_URL = re.compile(r"[^@\s]+@https?://[^\s/]+\S*")
_BASIC = re.compile(r"basic:[^:]+:.+")
_HEADER = re.compile(r"header:[!#$%&'*+.^_`|~0-9A-Za-z-]+:.+")


def check_proof(provider: str, proof: str, *, forwarded: bool = False) -> None:
    """Let a proof pass that has the form of one of *provider*'s.

    Shape:   forwarded: our own application brings it, whoever posted to it.
    Errors:  Rejected  it has another form; what it is is not spelled.    permanent
    """
    scheme = "relay" if forwarded else provider
    fits, expected = _of_kind(scheme, proof) if proof.startswith(NO_KEYS) else _FORMS.get(scheme, (_is_any, ""))
    if not fits(proof):
        raise Rejected(f"proof of {len(proof)} characters for {provider}: expected {expected}")


def _of_kind(provider: str, proof: str) -> Form:
    """What a proof must be that names its kind; SES takes none but basic, which stands beside a topic."""
    if provider == "ses" and not proof.startswith("basic:"):
        return _FORMS["ses"]
    if proof.startswith("basic:"):
        return lambda text: bool(_BASIC.fullmatch(text)), "basic:USER:PASSWORD"
    if proof.startswith("header:"):
        return lambda text: bool(_HEADER.fullmatch(text)), "header:NAME:VALUE"
    kind = proof.partition(":")[0]
    return lambda text: bool(text.partition(":")[2]), f"{kind}:TOKEN"


def _is_any(_: str) -> bool:
    return True


def _is_base64(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) >= 16  # shorter keys can be guessed
    except (binascii.Error, ValueError):
        return False


def _is_whsec(text: str) -> bool:
    return text.startswith("whsec_") and _is_base64(text.removeprefix("whsec_"))


def _is_elliptic(text: str) -> bool:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    return isinstance(_public_key(text), EllipticCurvePublicKey)


def _is_rsa(text: str) -> bool:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    return isinstance(_public_key(text), RSAPublicKey)


def _public_key(text: str) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return None


_FORMS: Mapping[str, Form] = {
    "relay": (lambda text: _is_base64(text.removeprefix("whsec_")),
              "a Standard Webhooks secret, whsec_ and base64 of 16 octets or more, or bearer:TOKEN"),
    "sendgrid": (_is_elliptic, "the security policy's public key (ECDSA, base64 or PEM), or basic:USER:PASSWORD"),
    "ses": (lambda text: bool(_ARN.fullmatch(text)),
            "the topic's ARN, arn:aws:sns:REGION:ACCOUNT:TOPIC, and perhaps basic:USER:PASSWORD besides"),
    "postal": (lambda text: _is_rsa(text.removeprefix("p=").rstrip(";")),
               "the RSA public key of your Postal (base64 or PEM), or basic:USER:PASSWORD"),
    "mandrill": (lambda text: bool(_AT_URL.fullmatch(text)), "KEY@URL, the URL exactly as entered at Mandrill"),
    "resend": (_is_whsec, "the webhook's signing secret, whsec_ and base64, or basic:USER:PASSWORD"),
}  # fmt: skip
