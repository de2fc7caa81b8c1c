"""Minting: what a sender chose counts where it can be asked; who mints hears what the group will mean."""

from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from handlers import tag as tags
from handlers.errors import AddressError, ConfigError, Rejected
from handlers.tag import Tag
from tests.unit import house
from tests.unit.letters import KEYS
from worker.accounts import Accounts
from worker.installation import Installation
from worker.minting import minting
from worker.settings import load_settings

JANE = "jane@example.com"
LONG = "somebody.with.a.rather.long.name@a-rather-long-domain.example.com"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def acme(server: fakeredis.FakeServer) -> Iterator[Installation]:
    """acme, with UNSUBD_ADDRESS and UNSUBD_PUBLIC_URL set, and no group yet."""
    with house.opened(server, public_url="https://unsub.example.com/") as installation:
        installation.accounts.add_sender("acme")
        yield installation


@pytest.fixture
def groups(acme: Installation) -> Accounts:
    """Groups 12, 13 (essential) and 14 (archived); 20 is beta's."""
    accounts = acme.accounts
    accounts.add_group("acme", "Weekly news", "", 12)
    accounts.add_group("acme", "Receipts", "", 13, essential=True)
    accounts.add_group("acme", "Old news", "", 14)
    accounts.edit_group("acme", 14, archived=True)
    accounts.add_sender("beta")
    accounts.add_group("beta", "Beta news", "", 20)
    return accounts


def minted(acme: Installation, group: int = 0, recipient: str = JANE) -> tuple[str, str | None]:
    """The address and the link."""
    found = minting(acme.settings, "acme", group)
    one = found.mint(group, recipient)
    return one.address, found.link(one)


# --- what the sender chose


def test_without_a_choice_the_settings_count(acme: Installation) -> None:
    address, link = minted(acme)

    tag = address.removeprefix("u+").removesuffix("@unsub.example.com")
    assert link == f"https://unsub.example.com/u/{tag}"
    assert tags.read(address, KEYS, {}).tag == Tag("acme", 0, JANE)


def test_the_senders_own_template_and_links_count(acme: Installation) -> None:
    acme.accounts.edit_sender("acme", address="bye.{tag}@mail.acme.example", public_url="https://go.acme.example/")

    address, link = minted(acme)

    tag = address.removeprefix("bye.").removesuffix("@mail.acme.example")
    assert link == f"https://go.acme.example/u/{tag}"
    assert tags.read(address, KEYS, {}).tag == Tag("acme", 0, JANE)
    acme.accounts.edit_sender("acme", https_url="https://acme.example/stop?who={tag}&x=1")
    assert minted(acme) == (address, f"https://acme.example/stop?who={tag}&x=1")
    acme.accounts.edit_sender("acme", address="", public_url="", https_url="")
    assert minted(acme)[1].startswith("https://unsub.example.com/u/")


def test_the_senders_own_template_needs_none_in_the_settings(server: fakeredis.FakeServer) -> None:
    with house.opened(server, address="") as installation:
        installation.accounts.add_sender("acme", address="bye.{tag}@mail.acme.example")
        installation.accounts.add_sender("beta")
        found = minting(installation.settings, "acme", 0)

        assert (found.mint(0, JANE).address.partition("@")[2], found.public_url) == ("mail.acme.example", None)
        assert found.link(found.mint(0, JANE)) is None
        with pytest.raises(ConfigError, match="UNSUBD_ADDRESS"):
            minting(installation.settings, "beta", 0).mint(0, JANE)


def test_an_opaque_tag_is_stored_before_it_is_given(acme: Installation) -> None:
    acme.accounts.edit_sender("acme", opaque=True)

    address, _ = minted(acme, recipient=" Jane@EXAMPLE.com")

    assert "jane" not in address
    refs = tags.stored_refs(address)
    assert tags.read(address, KEYS, acme.tags.found(refs)).tag == Tag("acme", 0, JANE)


def test_a_long_address_is_stored_and_a_short_one_leaves_no_trace(acme: Installation) -> None:
    before = acme.redis.dbsize()
    minted(acme)
    assert acme.redis.dbsize() == before

    address, _ = minted(acme, recipient=LONG)

    assert tags.read(address, KEYS, acme.tags.found(tags.stored_refs(address))).tag == Tag("acme", 0, LONG)


@pytest.mark.parametrize("opaque", [False, True])
def test_what_is_no_address_is_not_minted_for(acme: Installation, *, opaque: bool) -> None:
    acme.accounts.edit_sender("acme", opaque=opaque)
    before = acme.redis.dbsize()

    with pytest.raises(AddressError):
        minted(acme, recipient="jane")
    assert acme.redis.dbsize() == before


# --- what whoever mints hears


@pytest.mark.parametrize(
    ("group", "warning"),
    [
        (12, None),
        (0, "group 0: stops everything that acme sends, though it has groups"),
        (14, "group 14: archived, so this stops everything that acme sends"),
        (20, "group 20: sender acme has none of that id, so this stops everything that it sends"),
        (99, "group 99: sender acme has none of that id, so this stops everything that it sends"),
    ],
)
def test_a_tag_that_stops_more_than_it_says_is_minted_with_a_warning(
    acme: Installation, groups: Accounts, group: int, warning: str | None
) -> None:
    found = minting(acme.settings, "acme", group)

    assert found.warnings == ((warning,) if warning else ())
    assert tags.read(found.mint(group, JANE).address, KEYS, {}).tag == Tag("acme", group, JANE)


def test_group_0_is_the_right_one_where_recipients_see_no_other(acme: Installation) -> None:
    acme.accounts.add_group("acme", "Receipts", "", 13, essential=True)
    acme.accounts.add_group("acme", "Old news", "", 14)
    acme.accounts.edit_group("acme", 14, archived=True)

    assert minting(acme.settings, "acme", 0).warnings == ()


def test_nothing_in_a_mail_may_stop_an_essential_group(acme: Installation, groups: Accounts) -> None:
    with pytest.raises(Rejected, match="group 13: essential, expected another"):
        minting(acme.settings, "acme", 13)


def test_a_sender_that_nobody_registered_is_minted_for_by_the_settings(acme: Installation, groups: Accounts) -> None:
    found = minting(acme.settings, "gamma", 12)

    assert (found.warnings, found.sender.id) == ((), "gamma")
    assert found.mint(12, JANE).address.endswith("@unsub.example.com")


# --- who cannot be asked


def test_with_the_accounts_away_the_settings_count_and_a_warning_says_so(
    acme: Installation, server: fakeredis.FakeServer
) -> None:
    acme.accounts.edit_sender("acme", address="bye.{tag}@mail.acme.example", opaque=True)
    server.connected = False
    try:
        found = minting(acme.settings, "acme", 12)
        address = found.mint(12, JANE).address
    finally:
        server.connected = True

    [warning] = found.warnings
    assert warning.startswith("what sender acme chose cannot be asked, the settings count: UNSUBD_REDIS_URL")
    assert tags.read(address, KEYS, {}).tag == Tag("acme", 12, JANE)
    assert address.endswith("@unsub.example.com")


def test_before_the_first_start_nothing_is_asked_or_made(tmp_path: Path) -> None:
    environ = {name: value for name, value in house.ENVIRON.items() if name != "UNSUBD_REDIS_URL"}
    settings = load_settings(environ | {"UNSUBD_DATA_DIR": str(tmp_path / "data")})

    found = minting(settings, "acme", 13)

    assert (found.warnings, found.mint(13, JANE).stored) == ((), False)
    assert not (tmp_path / "data").exists()
