"""Headers: plain whatever writes them, each recipient's own, and nothing that a name or address can add a line to."""

import json
import random
from email import message_from_bytes, policy
from email.message import EmailMessage

import listunsub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import headers
from handlers import tag as tags
from handlers.address import one_address
from handlers.errors import AddressError, Rejected
from handlers.header_policy import POLICY, put_into
from handlers.headers import Addressed, Form, encoded, folded, shaped, unsubscribe_headers
from handlers.tag import AddressTemplate, Tag
from tests.unit.letters import KEYS, TEMPLATE

WORDS = ["jane", "o'brien", "j.doe", "a+b", "x_y", "josé", "very.long.name.of.somebody", "李", "1", "q=r", "%41"]
DOMAINS = ["example.com", "bücher.example", "a.b.c.d.example.org", "[192.0.2.1]", "xn--bcher-kva.example", "x.co"]
TEMPLATES = ["u+{tag}@unsub.example.com", "{tag}@u.example", "bye.{tag}@mail.acme.example", "un=sub={tag}@example.com"]
LONG_LINK = "https://acme.example/leave/" + "x" * 90 + "?t={tag}&lang=de"


def lines_for(recipient: str = "jane@example.com", link: str = "https://unsub.example.com/u/{tag}") -> headers.Lines:
    minted = tags.mint(KEYS, Tag("acme", 12, recipient), TEMPLATE)
    return unsubscribe_headers(minted, link.replace("{tag}", minted.tag))


def test_listunsub_finds_nothing_in_10_000_headers() -> None:
    choice = random.Random(8)
    found = []
    for number in range(10_000):
        template = AddressTemplate.parse(choice.choice(TEMPLATES))
        recipient = f"{choice.choice(WORDS)}{number}@{choice.choice(DOMAINS)}"
        minted = tags.mint(KEYS, Tag("acme", choice.randrange(99), recipient), template, opaque=choice.random() < 0.1)
        link = choice.choice(["https://unsub.example.com/u/{tag}", "https://bücher.example/ä?x={tag}", LONG_LINK])
        (_, value), (_, post) = unsubscribe_headers(minted, link.replace("{tag}", minted.tag))
        found += listunsub.audit(folded("List-Unsubscribe", value).partition(": ")[2], post)
        assert value.isascii()
        assert listunsub.parse_mailto(listunsub.parse(value)[0], strict=True).to == (minted.address,)

    assert found == []


@pytest.mark.parametrize("writing", [policy.SMTP, policy.default, policy.SMTPUTF8, policy.compat32, POLICY, None])
@pytest.mark.parametrize("link", ["https://unsub.example.com/u/{tag}", LONG_LINK])
def test_every_policy_of_the_standard_library_writes_them_plain(writing: policy.Policy | None, link: str) -> None:
    message = EmailMessage()
    message["To"], message["Subject"] = "Jané <jane@example.com>", "Grüße " * 30
    message.set_content("Hallo ä")
    put_into(message, lines_for("somebody.with.a.long.name@example.com", link))

    raw = message.as_bytes(policy=writing)
    back = message_from_bytes(raw, policy=policy.default)

    head = raw.partition(b"List-Unsubscribe:")[2].partition(b"List-Unsubscribe-Post")[0]
    assert b"=?" not in head
    lines = dict(lines_for("somebody.with.a.long.name@example.com", link))
    assert [" ".join(str(back[name]).split()) for name in lines] == list(lines.values())
    assert listunsub.audit(str(back["List-Unsubscribe"]), str(back["List-Unsubscribe-Post"])) == []


def test_putting_them_in_again_replaces_them() -> None:
    message = EmailMessage()
    put_into(message, lines_for("jo@example.com"))
    put_into(message, lines_for("ann@example.com"))

    assert message.get_all("List-Unsubscribe") == [dict(lines_for("ann@example.com"))["List-Unsubscribe"]]
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_they_are_folded_between_the_uris_alone() -> None:
    name, value = lines_for(link=LONG_LINK)[0]

    first, second = folded(name, value).split("\r\n")
    assert first.endswith("@unsub.example.com>,")
    assert second.startswith(" <https://")


# --- percent-encoding


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://d.example/u/x?a=b&c=d#e", "https://d.example/u/x?a=b&c=d#e"),
        ("https://d.example/a%20b", "https://d.example/a%20b"),
        ("https://d.example/100%", "https://d.example/100%25"),
        ("https://d.example/ü", "https://d.example/%C3%BC"),
        ("HTTPS://d.example:8443/x", "https://d.example:8443/x"),
        ("https://[2001:db8::1]/x", "https://[2001:db8::1]/x"),
        ("https://d.example/x>,<mailto:a@b>", "https://d.example/x%3E,%3Cmailto:a@b%3E"),
        ("https://d.example/x\r\nBcc: a@b", "https://d.example/x%0D%0ABcc:%20a@b"),
    ],
)
def test_a_link_is_percent_encoded_once(link: str, expected: str) -> None:
    assert encoded(link) == expected
    assert encoded(expected) == expected


@pytest.mark.parametrize(
    "link", ["", "javascript:alert(1)", "https:///x", "mailto:a@b", "d.example/u", "https://" + "x" * 900]
)
def test_what_is_no_link_is_refused(link: str) -> None:
    with pytest.raises(Rejected):
        encoded(link)


# --- injection


@given(recipient=st.text(max_size=30), link=st.text(max_size=60))
def test_no_address_or_link_adds_a_line_or_a_uri(recipient: str, link: str) -> None:
    text = f"{recipient}@example.com"
    try:
        minted = tags.mint(KEYS, Tag("acme", 12, one_address(text)), TEMPLATE)
    except AddressError:
        return
    (_, value), _ = unsubscribe_headers(minted, f"https://d.example/{link}")

    assert value.isascii()
    assert value.isprintable()
    assert len(listunsub.parse(value, strict=True)) == 2
    message = EmailMessage()
    put_into(message, unsubscribe_headers(minted, f"https://d.example/{link}"))
    assert len(message_from_bytes(message.as_bytes(policy=policy.SMTP)).keys()) == 2


@pytest.mark.parametrize("name", ["a\r\nBcc: x@y.example", "a\nX: y", "a\x00", "<x>,y", "a b", "a,b"])
def test_an_address_with_more_in_it_is_refused(name: str) -> None:
    with pytest.raises(AddressError):
        one_address(f"{name}@example.com")


# --- SendGrid's shapes


def addressed(*recipients: str) -> list[Addressed]:
    return [Addressed(each, lines_for(each)) for each in recipients]


def test_v3_gives_each_recipient_an_entry_and_headers_of_its_own() -> None:
    [request] = shaped("v3", addressed("jane@example.com", "jo@example.com"))

    assert request["tracking_settings"] == {"subscription_tracking": {"enable": False}}
    assert [entry["to"] for entry in request["personalizations"]] == [
        [{"email": "jane@example.com"}], [{"email": "jo@example.com"}],
    ]  # fmt: skip
    assert [entry["headers"] for entry in request["personalizations"]] == [
        dict(lines_for("jane@example.com")), dict(lines_for("jo@example.com")),
    ]  # fmt: skip


def test_v3_keeps_to_1000_entries_a_request() -> None:
    requests = shaped("v3", addressed(*(f"p{number}@example.com" for number in range(2001))))

    assert [len(each["personalizations"]) for each in requests] == [1000, 1000, 1]


def test_v2_and_smtpapi_carry_one_recipient() -> None:
    [v2] = shaped("v2", addressed("jane@example.com"))
    [smtp] = shaped("smtpapi", addressed("jane@example.com"))

    assert (v2["to"], json.loads(v2["headers"])) == ("jane@example.com", dict(lines_for()))
    off = {"subscriptiontrack": {"settings": {"enable": 0}}}
    assert json.loads(v2["x-smtpapi"]) == {"filters": off}
    assert json.loads(smtp.pop("X-SMTPAPI")) == {"to": ["jane@example.com"], "filters": off}
    assert smtp == dict(lines_for())


@pytest.mark.parametrize("form", ["v2", "smtpapi"])
@pytest.mark.parametrize("recipients", [(), ("jane@example.com", "jo@example.com")])
def test_v2_and_smtpapi_refuse_what_would_share_a_tag(form: Form, recipients: tuple[str, ...]) -> None:
    with pytest.raises(Rejected, match=f"{form}: {len(recipients)} recipients, expected one"):
        shaped(form, addressed(*recipients))
