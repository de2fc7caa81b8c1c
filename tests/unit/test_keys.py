"""Master keys in use, and the pseudonym key that survives their rotation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from handlers.errors import ConfigError, Rejected, StoreUnavailable
from handlers.tag import Keyring
from worker import keys
from worker.keys import Pseudonyms

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
NAMES = dict(zip((A, B, C), Keyring((A, B, C)).fingerprints(), strict=True))


def start(client: redis.Redis, *masters: bytes) -> bytes:
    """What every process does at its start."""
    keys.require_masters(client, Keyring(masters))
    return keys.pseudonym_key(client, Keyring(masters))


# --- masters


def test_the_first_master_is_remembered_the_others_are_not(client: redis.Redis) -> None:
    start(client, A, B)

    assert keys.in_use(client) == {NAMES[A]}


def test_a_fingerprint_is_16_hex_digits_of_an_hmac() -> None:
    assert Keyring((bytes(32),)).fingerprints() == ("f7595f1547e6c8d5",)


def test_no_key_at_all_is_refused_with_both_remedies(client: redis.Redis) -> None:
    with pytest.raises(ConfigError, match=r"no key, .*UNSUBD_SECRET_KEYS_FILE.*openssl rand -hex 32"):
        start(client)


def test_a_process_without_a_key_in_use_is_refused(client: redis.Redis) -> None:
    start(client, A)

    with pytest.raises(ConfigError, match=f"{NAMES[A]} is in use but not here: .*unsubd keys retire {NAMES[A]}"):
        start(client, B)
    assert keys.in_use(client) == {NAMES[A]}  # a refused process leaves no trace


def test_every_missing_key_is_named(client: redis.Redis) -> None:
    start(client, A)
    start(client, B, A)

    with pytest.raises(ConfigError) as caught:
        start(client, C)

    assert all(NAMES[master] in str(caught.value) for master in (A, B))


def test_rotation_appends_everywhere_and_then_moves_to_the_front(client: redis.Redis) -> None:
    pseudonyms = {start(client, *masters) for masters in ((A,), (A, B), (B, A))}

    assert keys.in_use(client) == {NAMES[A], NAMES[B]}
    assert len(pseudonyms) == 1


def test_a_retired_master_is_no_longer_asked_for(client: redis.Redis) -> None:
    kept = start(client, A, B)
    keys.retire(client, NAMES[A])

    assert start(client, B) == kept
    assert keys.in_use(client) == {NAMES[B]}


@pytest.mark.parametrize("name", ["", "0" * 16, NAMES[B]])
def test_only_a_master_in_use_can_be_retired(client: redis.Redis, name: str) -> None:
    start(client, A, B)

    with pytest.raises(Rejected, match="not in use, see: unsubd keys list"):
        keys.retire(client, name)


def test_a_master_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secret_keys"

    made = keys.make_master(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == made + "\n"
    assert len(bytes.fromhex(made)) == 32
    with pytest.raises(FileExistsError):
        keys.make_master(path)
    assert path.read_text() == made + "\n"


# --- the pseudonym key


def wrapped(client: redis.Redis) -> dict[str, str]:
    """What lies in the store."""
    kept: dict[str, str] = json.loads(client.get("unsubd:pseudonym-key") or b"{}")
    return kept


def test_the_pseudonym_key_is_made_once(client: redis.Redis) -> None:
    first = keys.pseudonym_key(client, Keyring((A,)))

    assert len(first) == 32
    assert keys.pseudonym_key(client, Keyring((A,))) == first


def test_it_lies_in_the_store_wrapped_under_every_active_master(client: redis.Redis) -> None:
    key = keys.pseudonym_key(client, Keyring((A, B)))

    assert set(wrapped(client)) == {NAMES[A], NAMES[B]}
    assert key.hex() not in (client.get("unsubd:pseudonym-key") or b"").decode()
    assert keys.pseudonym_key(client, Keyring((B,))) == key


def test_it_is_wrapped_again_under_a_new_master_and_the_old_wraps_stay(client: redis.Redis) -> None:
    key = keys.pseudonym_key(client, Keyring((A,)))
    before = wrapped(client)

    assert keys.pseudonym_key(client, Keyring((A, B))) == key
    assert wrapped(client)[NAMES[A]] == before[NAMES[A]]
    assert keys.pseudonym_key(client, Keyring((C, B))) == key  # A is gone, B unwraps it
    assert set(wrapped(client)) == {NAMES[A], NAMES[B], NAMES[C]}


def test_a_start_with_known_masters_writes_nothing(client: redis.Redis) -> None:
    keys.pseudonym_key(client, Keyring((A, B)))
    before = client.get("unsubd:pseudonym-key")

    keys.pseudonym_key(client, Keyring((B, A)))

    assert client.get("unsubd:pseudonym-key") == before


def test_one_that_no_active_master_unwraps_is_refused_and_kept(client: redis.Redis) -> None:
    keys.pseudonym_key(client, Keyring((A,)))
    before = client.get("unsubd:pseudonym-key")

    with pytest.raises(ConfigError, match="no active key opens what this store sealed: restore a key"):
        keys.pseudonym_key(client, Keyring((B,)))
    assert client.get("unsubd:pseudonym-key") == before


def test_a_damaged_wrap_is_passed_over(client: redis.Redis) -> None:
    key = keys.pseudonym_key(client, Keyring((A, B)))
    client.set("unsubd:pseudonym-key", json.dumps(wrapped(client) | {NAMES[A]: "00" * 60}))

    assert keys.pseudonym_key(client, Keyring((A, B))) == key


# --- pseudonyms


def test_a_pseudonym_is_stable_keyed_and_keeps_the_domain() -> None:
    name, other = Pseudonyms(A), Pseudonyms(B)

    assert name("jane@example.com") == name("jane@example.com") != other("jane@example.com")
    assert name("jane@example.com") != name("joe@example.com")
    digest, _, domain = name("jane@example.com").partition("@")
    assert (len(digest), domain) == (16, "example.com")


@pytest.mark.parametrize("recipient", ["jörg@example.com", '"a@b"@example.com', "\udcff@example.com"])
def test_every_recipient_has_one(recipient: str) -> None:
    assert Pseudonyms(A)(recipient).endswith("@example.com")


# --- the store away


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: keys.require_masters(client, Keyring((A,))),
        keys.in_use,
        lambda client: keys.retire(client, NAMES[A]),
        lambda client: keys.pseudonym_key(client, Keyring((A,))),
    ],
    ids=["require_masters", "in_use", "retire", "pseudonym_key"],
)
def test_the_store_away_is_unavailable(ask: Callable[[redis.Redis], Any]) -> None:
    server = fakeredis.FakeServer()
    server.connected = False

    with pytest.raises(StoreUnavailable, match=r"^UNSUBD_STORE_URL: the server does not answer"):
        ask(fakeredis.FakeRedis(server=server))
