"""Whose mail is this: what a mail server knows of it, the most telling first."""

import pytest

from handlers.errors import Rejected
from handlers.route import Origin, Route, find, read_key

EVERY = {
    key: Route(f"s{number}", number)
    for number, key in enumerate(
        ["from:news@example.com", "from:example.com", "user:shop", "port:2525", "from:weekly@example.com"], 1
    )
}


@pytest.mark.parametrize(
    ("origin", "group"),
    [
        (Origin("news@example.com", "shop", "2525"), 1),
        (Origin("News@EXAMPLE.com", "", "25"), 1),
        (Origin("weekly+jane=example.org@example.com", "shop", "2525"), 5),  # VERP
        (Origin("other@example.com", "shop", "2525"), 2),
        (Origin("other@sub.example.com", "shop", "2525"), 3),  # a domain is not its subdomains
        (Origin("", "shop", "25"), 3),
        (Origin("", "", "2525"), 4),
        (Origin("no address", "", "2525"), 4),
    ],
)
def test_the_most_telling_key_counts(origin: Origin, group: int) -> None:
    found = find(EVERY, origin)

    assert found is not None
    assert found.group == group


@pytest.mark.parametrize("origin", [Origin("", "", ""), Origin("x@example.org", "Shop", "25"), Origin("@", "", "0")])
def test_mail_that_no_key_fits_has_no_route(origin: Origin) -> None:
    assert find(EVERY, origin) is None
    assert find({}, origin) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" from:News@Bücher.example ", "from:news@xn--bcher-kva.example"), ("from:Bücher.example", "from:xn--bcher-kva.example"),
        ("user:DOMAIN\\Shop:1", "user:DOMAIN\\Shop:1"), ("port:0025", "port:25"),
    ],
)  # fmt: skip
def test_a_key_has_one_spelling(text: str, key: str) -> None:
    assert read_key(text) == key
    assert read_key(key) == key


@pytest.mark.parametrize(
    "text",
    [
        "", "from:", "news@example.com", "port:0", "port:65536", "port:x", "port:²", "host:x", "from:a@", "from:..",
        "user:a\nb", "user:" + "x" * 400, "from:a b@c d",
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        read_key(text)
