"""Canonical addresses, and the spellings that a damaged one may have had."""

import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handlers.address import canonical, masked, one_address, split, undamaged
from handlers.errors import AddressError

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=60)
LIKE_ADDRESSES = st.builds("{}@{}".format, st.text(max_size=20), st.text(max_size=20))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("jane@example.com", "jane@example.com"),
        ("  Jane.DOE@Example.COM\n", "jane.doe@example.com"),
        ("jane@example.com.", "jane@example.com"),
        ("jane@example.com..", "jane@example.com"),
        ("jane@münchen.example", "jane@xn--mnchen-3ya.example"),
        ("jane@MÜNCHEN.example", "jane@xn--mnchen-3ya.example"),
        ("jane@mu\u0308nchen.example", "jane@xn--mnchen-3ya.example"),
        ("jane@XN--MNCHEN-3YA.example", "jane@xn--mnchen-3ya.example"),
        ("jane@例え。テスト", "jane@xn--r8jz45g.xn--zckzah"),
        ("jane@ｅｘａｍｐｌｅ.com", "jane@example.com"),
        ("jane@straße.example", "jane@xn--strae-oqa.example"),
        ("jane@i❤.ws", "jane@xn--i-7iq.ws"),
        ("jane@i❤\ufe0f.ws", "jane@xn--i-7iq.ws"),
        ("ZOE\u0308@example.com", "zo\u00eb@example.com"),
        ("İpek@example.com", "i\u0307pek@example.com"),
        ("J\u030can@example.com", "\u01f0an@example.com"),  # only its small letter is one character
        ('"Jane@Home"@example.com', '"jane@home"@example.com'),
        ("jane+News@example.com", "jane+news@example.com"),
        ("o'brien@example.ie", "o'brien@example.ie"),
        ("jane@[192.0.2.1]", "jane@[192.0.2.1]"),
        ("jane@[IPv6:2001:DB8::1]", "jane@[ipv6:2001:db8::1]"),
        ("jane@mail_out.example.com", "jane@mail_out.example.com"),
        ("jane@localhost", "jane@localhost"),
    ],
)
def test_canonical_spelling(address, expected):
    assert expected == canonical(address)


_WORDS = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~.-", min_size=1, max_size=12) | st.sampled_from(
    ["xn--", "é", " ", '"', "x" * 250]
)


@given(st.builds("{}@{}.{}".format, _WORDS, _WORDS, _WORDS))
def test_an_address_that_needs_nothing_is_what_the_long_way_makes_of_it(address):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handlers.address._is_canonical", lambda _: False)
        the_long_way = [_outcome(canonical, address), _outcome(one_address, address)]
    assert [_outcome(canonical, address), _outcome(one_address, address)] == the_long_way


def _outcome(read, address):
    try:
        return read(address)
    except AddressError as error:
        return str(error)


def test_dots_and_subaddresses_belong_to_whoever_owns_the_mailbox():
    assert len({canonical(text) for text in ("j.doe@gmail.com", "jdoe@gmail.com", "jdoe+x@gmail.com")}) == 3


@pytest.mark.parametrize(
    "address",
    [
        "", " ", "@", "jane", "jane@", "@example.com", "jane@.", "jane@a..b", "jane@exa mple.com", "jane@exam\0ple.com",
        "ja\nne@example.com", "ja\x7fne@example.com", "ja\ud800ne@example.com", "jane@example.com\x00x", "jane@[]",
        "jane@[192.0.2.1", "jane@exa,mple.com", "jane@" + "x" * 64 + ".com", "jane@" + "x." * 127 + "com",
        "x" * 309 + "@example.com", "é" * 155 + "@example.com", "jane@\u00ad", "jane@a\u200d\u0301\U000e0001.com",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address):
    with pytest.raises(AddressError):
        canonical(address)


def test_the_longest_address_has_320_octets():
    longest = "x" * 308 + "@example.com"

    assert longest == canonical(longest)


def test_errors_do_not_quote_the_address():
    with pytest.raises(AddressError) as error:
        canonical("jane@exa mple.com")

    assert "jane" not in str(error.value)
    assert "mple" not in str(error.value)


@settings(max_examples=300, deadline=None)
@given(st.one_of(ANYTHING, LIKE_ADDRESSES))
def test_canonical_raises_nothing_but_address_error_and_is_stable(text):
    try:
        once = canonical(text)
    except AddressError:
        return

    assert once == canonical(once) == unicodedata.normalize("NFC", once)
    assert len(once.encode()) <= 320
    assert once.rpartition("@")[2].isascii()


@settings(max_examples=100, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9.+_-]{1,20}@[A-Za-z0-9]{1,10}\.[a-z]{2,4}", fullmatch=True))
def test_canonical_folds_case(address):
    assert canonical(address) == canonical(address.upper()) == canonical(address.swapcase())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("jane@example.com", ("jane", "example.com")),
        ("Jane@Example.COM", ("Jane", "Example.COM")),
        ('"a@b"@example.com', ('"a@b"', "example.com")),
    ],
)
def test_split_at_the_last_at_sign(address, expected):
    assert expected == split(address)


@pytest.mark.parametrize("address", ["", "jane", "@example.com", "jane@"])
def test_split_wants_both_sides(address):
    with pytest.raises(AddressError):
        split(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("jane@example.com", "j···e@example.com"),
        ("jo@example.com", "j···@example.com"),
        ("j@example.com", "j···@example.com"),
        ("zoë@example.com", "z···ë@example.com"),
        ('"a@b"@example.com', '"···"@example.com'),
    ],
)
def test_masked_shows_the_ends_of_the_local_part(address, expected):
    assert expected == masked(address)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("<mailto:u+x@d>", "u+x@d"),
        ("mailto : u+x@d", "u+x@d"),
        ("MailTo: u+x@d", "u+x@d"),
        (" 'u+x@d' ", "u+x@d"),
        ('"u x"@d', "u+x@d"),
        ("'u+x'@d", "u+x@d"),
        ("u%2Bx@d", "u+x@d"),
        ("u%20x@d", "u+x@d"),
        ("u+x@d?subject=unsubscribe", "u+x@d"),
        ("(u+x@d)", "u+x@d"),
        ("u+x%40d", "u+x@d"),
    ],
)
def test_undamaged_offers_the_spelling_before_the_damage(text, spelling):
    assert spelling in [offered for _, offered in undamaged(text)]


def test_undamaged_begins_with_the_text_as_it_came():
    assert undamaged("u%2Bx@d")[0] == ("", "u%2Bx@d")


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_undamaged_offers_each_spelling_once(text):
    offered = [spelling for _, spelling in undamaged(text)]

    assert text == offered[0]
    assert len(offered) == len(set(offered)) <= 5


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_undamaged_decodes_percent_escapes_once(text):
    assume("%" not in text)

    assert not any("u+x" in spelling for _, spelling in undamaged(text + "u%252Bx"))
