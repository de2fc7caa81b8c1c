"""CloudMailin: octets of any kind in raw format, and no answer that bounces. Shapes are cases in tests/webhooks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import SignatureInvalid
from handlers.providers import cloudmailin

FORM = {"content-type": ["multipart/form-data; boundary=b"]}


def _form(raw):
    fields = {"message": raw, "envelope[to]": b"a@b"}
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (n.encode(), v) for n, v in fields.items()
    ]
    return b"".join([*parts, b"--b--\r\n"])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_raw_format_keeps_any_octets(raw):
    if b"\r\n--b" not in b"\r\n" + raw:
        [found] = cloudmailin.read(FORM, _form(raw))

        assert (raw, "a@b", None) == (found.raw, found.envelope_to, found.envelope_from)


def test_raw_format_keeps_megabytes():
    raw = b"Subject: x\r\n\r\n" + b"\xe9\r\n" * 400_000

    assert cloudmailin.read(FORM, _form(raw))[0].raw == raw


def test_only_basic_authentication_proves_anything():
    proofs = ["signature", "basic:u:pä:ss"]
    headers = {"authorization": ["Basic dTpww6Q6c3M="]}

    assert cloudmailin.verify(headers, b"", proofs, 0) is None
    for wrong in (
        {},
        {"authorization": ["Basic dTpw"]},
        {"authorization": ["signature"]},
        {"signature": ["signature"]},
    ):
        with pytest.raises(SignatureInvalid, match="in the URL"):
            cloudmailin.verify(wrong, b"", proofs, 0)
