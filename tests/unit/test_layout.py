"""Where rows lie, by itself."""

from hypothesis import given
from hypothesis import strategies as st

from tests.harness.names import NAMES
from worker.store import layout

hashes = st.integers(0, 2**32 - 1)
LONG = "l" * 64 + "@" + "d" * 180 + ".example.com"


def depth_of(bucket: int, buckets: int) -> int:
    """How deep a bucket is when its sender has so many."""
    level = buckets.bit_length() - 1
    return level + (bucket < buckets - (1 << level) or bucket >= 1 << level)


@given(hashes, st.integers(1, 5000), st.integers(1, 5000))
def test_whoever_knows_less_is_led_to_the_row(hash_: int, known: int, more: int) -> None:
    buckets = known + more
    bucket, met = layout.bucket_of(hash_, known), []
    while (lower := layout.child(bucket, hash_, depth_of(bucket, buckets))) is not None:
        assert layout.parent(lower) == bucket
        met.append(bucket := lower)

    assert bucket == layout.bucket_of(hash_, buckets)
    assert met == sorted(set(met))


@given(hashes, st.integers(1, 5000), st.integers(1, 5000))
def test_whoever_knows_too_much_is_led_back_to_the_row(hash_: int, buckets: int, more: int) -> None:
    bucket = layout.bucket_of(hash_, buckets + more)
    while bucket >= buckets:
        bucket = layout.parent(bucket)
    while (lower := layout.child(bucket, hash_, depth_of(bucket, buckets))) is not None:
        bucket = lower

    assert bucket == layout.bucket_of(hash_, buckets)


@given(st.integers(1, 300), st.integers(0, 4294967295))
def test_no_field_and_no_part_is_too_long_for_a_listpack(octets: int, group: int) -> None:
    place = layout.place(NAMES, "acme", "j" * octets + "@example.com")

    assert len(layout.field(place.address, group)) <= 64
    assert all(len(each) <= 64 for each in place.parts)


def test_a_long_address_is_put_together_again() -> None:
    place = layout.place(NAMES, "acme", LONG)
    bucket = dict(zip(place.parts[::2], place.parts[1::2], strict=True))

    assert layout.recipient_of(place.address, bucket) == LONG
    assert len(bucket) == 5


def test_an_address_may_begin_as_other_fields_do() -> None:
    for address in ("=jo@example.com", "~jo@example.com"):
        place = layout.place(NAMES, "acme", address)

        assert (place.address, place.parts) == (address.encode(), ())
        assert layout.recipient_of(place.address, {}) == address
        assert layout.hash_of(NAMES, "acme", layout.field(place.address, 12)) == place.hash


def test_every_form_of_a_recipient_lies_in_one_bucket() -> None:
    for address in ("jane@example.com", LONG):
        place = layout.place(NAMES, "acme", address)
        forms = [place.name, layout.field(place.name, 12), layout.field(place.address, 0), *place.parts[::2]]

        assert {layout.hash_of(NAMES, "acme", each) for each in forms} == {place.hash}
        assert layout.place(NAMES, "acme", place.name.decode()).hash == place.hash


def test_a_name_that_is_not_ours_has_a_place() -> None:
    for name in ("~", "~short", "~not/base64!", "~jörg"):
        assert layout.place(NAMES, "acme", name).name == name.encode()


def test_a_bucket_says_how_deep_it_is() -> None:
    assert layout.read_head(b"3 17") == layout.Head(3, 17, filled=False)
    assert layout.read_head(b"3 17 filled").filled


@given(st.integers(1, 70), st.integers(0, 8), st.booleans(), st.data())
def test_a_bucket_is_as_hinted_when_it_answers_for_all_whom_the_hint_leads_to_it(
    buckets: int, depth: int, filled: bool, data: st.DataObject
) -> None:
    bucket = data.draw(st.integers(0, buckets - 1))
    led = [hash_ for hash_ in range(512) if layout.bucket_of(hash_, buckets) == bucket]
    for head in (b"", b"%d 17%s" % (depth, b" filled" * filled)):
        every = all(layout.is_here(head, bucket, hash_) for hash_ in led)
        assert layout.is_as_hinted(head, bucket, buckets) == every
