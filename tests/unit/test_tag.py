"""The address tag: every case of vectors/tags.json, the repairs, and what must hold for any address."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handlers import tag
from handlers.address import canonical
from handlers.errors import AddressError, ConfigError, Rejected, TagForged, TagMalformed
from handlers.tag import AddressTemplate, Keyring, StoredTag, Tag, mint
from tests.unit.letters import JANE, KEYS, TEMPLATE, rows, tagged
from tests.unit.vectors import make_tags

VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("tags.json").read_text("utf-8"))
MASTERS = tuple(bytes.fromhex(master) for master in VECTORS["masters"])
BOTH = Keyring(MASTERS)
ROWS = {StoredTag(case["ref"]): Tag(case["sender"], case["group"], case["canonical"]) for case in VECTORS["cases"]}
CASES = [pytest.param(case, id=f"{number}-{case['tag'][0]}") for number, case in enumerate(VECTORS["cases"])]

OTHER = Keyring((b"a master that signed something else",))
LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyzäöüßşøżабвгд日本語中文한글")
DOMAINS = st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=4).map(".".join)
READABLE = st.from_regex(r"[a-z0-9_-]{1,20}(\.[a-z0-9_-]{1,9}){0,3}@[a-z0-9]{1,12}(\.[a-z]{2,5}){1,2}", fullmatch=True)
WEIRD = st.builds("{}@{}".format, st.text(min_size=1, max_size=30), DOMAINS)
QUOTED = st.builds('"{}"@{}'.format, st.text(string.printable.strip(), max_size=30), DOMAINS)
LONG = st.builds("{}@{}".format, st.text("abc.-_+", min_size=30, max_size=80), DOMAINS)
LITERAL = st.ip_addresses().map("jane@[{}]".format)
ADDRESSES = st.one_of(READABLE, WEIRD, QUOTED, LONG, LITERAL)
SENDERS = st.from_regex(r"[a-z0-9]{1,16}", fullmatch=True)
GROUPS = st.one_of(st.just(0), st.integers(0, 9999), st.just(tag.MAX_GROUP))
TEMPLATES = st.sampled_from(["u+", "", "unsubscribe-", "a.b.h+", "U_", "h" * 36 + "="]).map(
    lambda prefix: AddressTemplate.parse(prefix + "{tag}@unsub.example.com")
)


def _tag(sender, group, recipient):
    try:
        return Tag(sender, group, canonical(recipient))
    except AddressError:
        assume(False)


TAGS = st.builds(_tag, SENDERS, GROUPS, ADDRESSES)


def _read(address, keys=KEYS, found=None):
    return tag.read(address, keys, found or {}).tag


def test_vectors_are_what_their_generator_writes():
    assert make_tags.vectors() == VECTORS


@pytest.mark.parametrize("case", CASES)
def test_vector_is_minted(case):
    asked = Tag(case["sender"], case["group"], case["recipient"])
    template = AddressTemplate.parse(case["template"])

    minted = mint(Keyring(MASTERS[case["master"] :]), asked, template, opaque=case["opaque"])

    expected = tag.Minted(case["tag"], case["address"], case["stored"], case["ref"])
    assert expected == minted


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spell", [str, str.upper, str.lower, str.swapcase])
def test_vector_is_read_in_any_case_with_both_masters_active(case, spell):
    expected = Tag(case["sender"], case["group"], case["canonical"])
    assert tag.Reading(expected, "", case["master"]) == tag.read(spell(case["address"]), BOTH, ROWS)


@pytest.mark.parametrize("case", CASES)
def test_vector_is_read_from_the_local_part_and_from_the_bare_tag(case):
    expected = Tag(case["sender"], case["group"], case["canonical"])
    assert [expected, expected] == [_read(text, BOTH, ROWS) for text in (case["address"].split("@")[0], case["tag"])]


@pytest.mark.parametrize(("text", "why"), VECTORS["refused"], ids=[why for _, why in VECTORS["refused"]])
def test_refused_vector(text, why):
    for address in (text, f"{text}@bye.example.net", text.upper()):
        with pytest.raises((TagForged, TagMalformed)):
            tag.read(address, BOTH, ROWS)


def test_what_has_a_tags_shape_is_forged_and_the_rest_is_malformed():
    with pytest.raises(TagForged):
        tag.read(tagged(keys=OTHER), KEYS)
    with pytest.raises(TagMalformed):
        tag.read("jane@example.com", KEYS)


def test_errors_quote_neither_tag_nor_address():
    with pytest.raises(TagForged) as forged:
        tag.read(tagged(keys=OTHER), KEYS)

    assert "jane" not in str(forged.value)


@settings(max_examples=200, deadline=None)
@given(TAGS, TEMPLATES, st.booleans())
def test_reading_undoes_minting_for_every_address(asked, template, opaque):
    minted = mint(KEYS, asked, template, opaque=opaque)

    found = {StoredTag(minted.ref): asked} if minted.stored else {}
    assert asked == _read(minted.address, found=found)


@settings(max_examples=100, deadline=None)
@given(TAGS, TEMPLATES, st.booleans())
def test_no_local_part_is_longer_than_64_octets(asked, template, opaque):
    local_part, _, domain = mint(KEYS, asked, template, opaque=opaque).address.rpartition("@")

    assert len(local_part.encode()) <= 64
    assert domain == "unsub.example.com"


@settings(max_examples=50, deadline=None)
@given(TAGS, st.booleans())
def test_a_tag_uses_one_case_and_no_character_that_needs_escaping(asked, opaque):
    minted = mint(KEYS, asked, TEMPLATE, opaque=opaque)

    assert set(minted.tag) <= set(string.ascii_lowercase + string.digits + "._-")


@settings(max_examples=100, deadline=None)
@given(SENDERS, GROUPS, st.integers(1, 60))
def test_readable_budget_is_the_length_up_to_which_addresses_stay_readable(sender, group, length):
    plain = "x" * length + "@ex.example"

    minted = mint(KEYS, Tag(sender, group, plain), TEMPLATE)

    assert minted.stored == (len(plain) > TEMPLATE.readable_budget(sender, group))


def _neighbours(text, letters):
    for at in range(len(text) + 1):
        yield text[:at] + text[at + 1 :]
        for letter in letters:
            yield text[:at] + letter + text[at:]
            yield text[:at] + letter + text[at + 1 :]


@pytest.mark.parametrize("recipient", ["jane@example.com", "o'brien@example.ie"])
@pytest.mark.parametrize("opaque", [False, True])
def test_every_single_change_is_refused_or_reads_the_same(recipient, opaque):
    asked = Tag("acme", 12, recipient)
    minted = mint(KEYS, asked, TEMPLATE, opaque=opaque)

    for changed in _neighbours(minted.tag, "abhz12790-_.+@ %=?\"'<>AZé\u212a\u0131\n\0"):
        try:
            assert asked == _read(f"u+{changed}@unsub.example.com", found=rows(asked)), changed
        except (TagForged, TagMalformed):
            pass


@settings(max_examples=150, deadline=None)
@given(TAGS, st.data())
def test_a_random_change_is_refused_or_reads_the_same(asked, data):
    minted = mint(KEYS, asked, TEMPLATE)
    at = data.draw(st.integers(0, len(minted.tag)))
    changed = minted.tag[:at] + data.draw(st.text(max_size=2)) + minted.tag[at + data.draw(st.integers(0, 2)) :]

    try:
        assert asked == _read(f"u+{changed}@unsub.example.com", found={StoredTag(minted.ref): asked})
    except (TagForged, TagMalformed):
        pass


NEARLY = st.from_regex(r"[uU]?[+ ]?[abh]([a-z2-7]{13}-)?[a-z0-9]{0,3}-[0-9]{0,11}-\S{0,40}", fullmatch=True)
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=80)


@settings(max_examples=250, deadline=None)
@given(st.one_of(ANYTHING, NEARLY, st.builds("<mailto:{}@{}?{}>".format, NEARLY, ANYTHING, ANYTHING)))
def test_reading_anything_raises_nothing_but_rejected(text):
    tag.is_shaped(text)
    found = dict.fromkeys(tag.stored_refs(text), JANE)
    with pytest.raises(Rejected):
        tag.read(text, KEYS, found)


@settings(max_examples=150, deadline=None)
@given(ANYTHING)
def test_minting_anything_raises_nothing_but_rejected(text):
    try:
        mint(KEYS, Tag("acme", 0, text), TEMPLATE)
    except Rejected:
        pass


def test_a_local_part_over_64_octets_is_still_read():
    assert _read("a-very-long-folder-name-that-qmail-puts-before-it-" + tagged()) == JANE


def test_reading_megabytes_takes_no_time():
    with pytest.raises(Rejected):
        tag.read("-a" * 1_000_000, KEYS)


def test_a_rotated_key_still_reads_and_its_index_is_told():
    rotated = Keyring((OTHER.masters[0], KEYS.masters[0]))

    assert [tag.read(tagged(keys=keys), rotated).key_index for keys in (KEYS, OTHER)] == [1, 0]


def test_a_rotated_key_still_reads_stored_tags():
    rotated = Keyring((OTHER.masters[0], KEYS.masters[0]))

    assert tag.Reading(JANE, "", 1) == tag.read(tagged(opaque=True), rotated, rows(JANE))


@pytest.mark.parametrize("opaque", [False, True])
def test_a_retired_key_reads_no_more(opaque):
    with pytest.raises(TagForged):
        tag.read(tagged(opaque=opaque), OTHER, rows(JANE))


def test_no_key_reads_nothing():
    with pytest.raises(TagForged):
        tag.read(tagged(), Keyring(()))


def test_a_stored_row_counts_only_if_its_mac_matches():
    somebody_else = Tag("acme", 12, "john@example.com")
    [ref] = tag.stored_refs(tagged(opaque=True))

    with pytest.raises(TagForged):
        tag.read(tagged(opaque=True), KEYS, {ref: somebody_else})


def test_stored_refs_names_each_stored_tag_once_and_no_other():
    [ref] = rows(JANE)

    assert [ref] == tag.stored_refs(f"<mailto:{tagged(opaque=True).upper()}>")
    assert tag.stored_refs(tagged()) == []


REPAIRS = {
    "upper case": (str.upper, ""),
    "plus read as a space": (lambda text: text.replace("+", " "), ""),
    "plus read as a space, quoted": (lambda text: '"' + text.replace("+", " ").replace("@", '"@'), ""),
    "percent escapes left in": (lambda text: text.replace("+", "%2B"), "unwrap+percent"),
    "percent escapes in lower case": (lambda text: text.replace("+", "%2b").replace("-", "%2d"), "unwrap+percent"),
    "mailto kept": (lambda text: "mailto:" + text, ""),
    "mailto in capitals": (lambda text: "MAILTO:" + text, ""),
    "space before the colon": (lambda text: "mailto : " + text, ""),
    "query kept": (lambda text: text + "?subject=unsubscribe", ""),
    "query with an address in it": (lambda text: text + "?cc=x@y.example", "unwrap"),
    "apostrophes": (lambda text: f"'{text}'", ""),
    "apostrophes around the local part": (lambda text: "'" + text.replace("@", "'@"), "unwrap"),
    "brackets": (lambda text: f"<{text}>", ""),
    "brackets and mailto": (lambda text: f"<mailto:{text}>", ""),
    "brackets, mailto, percent, query": (
        lambda text: f"<mailto:{text.replace('+', '%2B')}?subject=x>",
        "unwrap+percent",
    ),
    "trailing equals sign": (lambda text: text.replace("@", "=@"), ""),
    "another prefix": (lambda text: text.replace("u+", "box-unsub="), ""),
    "another domain": (lambda text: text.replace("unsub.example.com", "MX.example.net"), ""),
    "spaces around it": (lambda text: f"  {text}\t", ""),
}


@pytest.mark.parametrize("name", REPAIRS)
@pytest.mark.parametrize("opaque", [False, True])
def test_damage_is_repaired(name, opaque):
    damage, _ = REPAIRS[name]

    assert _read(damage(tagged(opaque=opaque)), found=rows(JANE)) == JANE


@pytest.mark.parametrize("name", [name for name, (_, repair) in REPAIRS.items() if repair])
def test_the_repair_is_told(name):
    damage, repair = REPAIRS[name]

    assert repair == tag.read(damage(tagged()), KEYS).repair


@pytest.mark.parametrize("name", REPAIRS)
def test_no_repair_makes_a_forged_tag_good(name):
    damage, _ = REPAIRS[name]

    assert tag.is_shaped(damage(tagged(keys=OTHER)))
    with pytest.raises(TagForged):
        tag.read(damage(tagged(keys=OTHER)), KEYS)


def test_percent_escapes_are_decoded_once():
    with pytest.raises(TagMalformed):
        tag.read(tagged().replace("+", "%252B"), KEYS)


@pytest.mark.parametrize(
    "address", ["jane@example.com", "bounce+abc123-acme@example.com", "u+hello@unsub.example.com", "", "@"]
)
def test_ordinary_addresses_have_no_tags_shape(address):
    assert not tag.is_shaped(address)


@pytest.mark.parametrize("sender", ["", "Acme", "a-b", "x" * 17, "é", "a b", "a\n"])
def test_minting_refuses_a_sender_id_outside_its_alphabet(sender):
    with pytest.raises(TagMalformed):
        mint(KEYS, Tag(sender, 1, "jane@example.com"), TEMPLATE)


@pytest.mark.parametrize("group", [-1, 4294967296])
def test_minting_refuses_a_group_out_of_range(group):
    with pytest.raises(TagMalformed):
        mint(KEYS, Tag("acme", group, "jane@example.com"), TEMPLATE)


@pytest.mark.parametrize("recipient", ["", "jane", "@example.com", "jane@", "ja\0ne@example.com", "jane@exa mple.com"])
def test_minting_refuses_what_is_no_address(recipient):
    with pytest.raises(AddressError):
        mint(KEYS, Tag("acme", 1, recipient), TEMPLATE)


def test_minting_without_a_key_is_a_configuration_error():
    with pytest.raises(ConfigError):
        mint(Keyring(()), JANE, TEMPLATE)


@pytest.mark.parametrize(
    ("text", "prefix", "domain"),
    [
        ("u+{tag}@unsub.example.com", "u+", "unsub.example.com"),
        (" {tag}@Unsub.Example.COM\n", "", "unsub.example.com"),
        ("Un_sub=bounce.{tag}@x", "Un_sub=bounce.", "x"),
        ("p" * 36 + "-{tag}@x.example", "p" * 36 + "-", "x.example"),
    ],
)
def test_template_is_parsed(text, prefix, domain):
    assert AddressTemplate(prefix, domain) == AddressTemplate.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "u@unsub.example.com", "u+{tag}", "u+{tag}@", "u+{tag}+x@unsub.example.com", "u {tag}@unsub.example.com",
        "<u+{tag}@unsub.example.com>", "u+{tag}@unsub_example.com", "u+{tag}@müller.example", "ü+{tag}@unsub.example.com",
        "u+{tag}@unsub..example.com", "u+{TAG}@unsub.example.com", "p" * 37 + "-{tag}@unsub.example.com",
    ],
)  # fmt: skip
def test_template_of_another_shape_is_a_configuration_error(text):
    with pytest.raises(ConfigError, match="UNSUBD_ADDRESS"):
        AddressTemplate.parse(text)


def test_template_that_runs_into_the_tag_is_a_configuration_error():
    with pytest.raises(ConfigError, match="between prefix and"):
        AddressTemplate.parse("unsub{tag}@unsub.example.com")


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("u+anything@unsub.example.com", True), ("U+@UNSUB.example.com", True), ("u+x@unsub.example.com.>", True),
        ("u+x@other.example.com", False), ("v+x@unsub.example.com", False), ("u@unsub.example.com", False),
    ],
)  # fmt: skip
def test_template_holds_what_stands_under_its_prefix_and_domain(address, held):
    assert held == TEMPLATE.holds(address)


def test_a_catch_all_template_holds_only_what_has_a_tags_shape():
    catch_all = AddressTemplate.parse("{tag}@unsub.example.com")

    assert catch_all.holds(tagged(keys=OTHER).removeprefix("u+"))
    assert not catch_all.holds("postmaster@unsub.example.com")


def test_fingerprints_name_each_master_in_order():
    assert tuple(VECTORS["fingerprints"]) == BOTH.fingerprints()
    assert VECTORS["fingerprints"][1] == tag.fingerprint(MASTERS[1])


def test_a_short_master_is_a_configuration_error_that_does_not_tell_it():
    with pytest.raises(ConfigError, match="key 2 has 15 bytes") as error:
        Keyring((b"k" * 16, b"secret-of-15-by"))

    assert "secret" not in str(error.value)


def test_each_sender_has_keys_of_its_own_newest_first():
    one, other = (BOTH.sender_keys(sender) for sender in ("acme", "beta"))

    assert len({*one, *other}) == 4
    assert one == tuple(Keyring((master,)).sender_keys("acme")[0] for master in MASTERS)


def test_a_flood_of_forged_senders_does_not_grow_the_keyring():
    keyring = Keyring((b"k" * 16,))

    for number in range(5000):
        keyring.sender_keys(f"s{number}")

    assert len(keyring._derived) <= 4097
