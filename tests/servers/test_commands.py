"""Every command whose output scripts rely on, as a process: what it prints, how it ends, and what it leaves alone."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from handlers.request import Action, Request, request_id
from handlers.tag import AddressTemplate, Keyring, Tag, mint
from tests.harness import posts
from tests.harness.mails import address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, UNSUBD, Service, until
from worker.accounts import Accounts
from worker.keys import pseudonym_key, require_masters
from worker.store import Store
from worker.store.tags import StoredTags

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}
JANE = "jane.doe@example.com"
LONG = "somebody.with.a.rather.long.name@a-rather-long-domain.example.com"
NOON_MS = 1_800_000_000_000


def opaque(number: int) -> str:
    """Return the address of person *number* with a stored tag."""
    minted = mint(Keyring((bytes.fromhex(MASTERS[0]),)), Tag("acme", 1, recipient(number)), _TEMPLATE, opaque=True)
    return minted.address


_TEMPLATE = AddressTemplate("u+", "unsub.example.com")


def written(folder: Path, name: str, raw: bytes) -> str:
    """Write a file and return its path."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(raw)
    return str(folder / name)


def contents(client: Redis) -> dict[bytes, tuple[bytes | None, int]]:
    """Every key with its exact value and whether it expires."""
    return {key: (client.dump(key), min(client.ttl(key), 0)) for key in client.scan_iter()}


def refused(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """Check one line on stderr, nothing on stdout, and nobody's address."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(f"unsubd: {message}.*\n", done.stderr), done.stderr
    assert not re.search(r"jane|person", done.stderr)


# --- tags and headers, with keys and template alone


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Service]:
    """No Redis, no data folder: and there is none afterwards."""
    service = Service(tmp_path, **KEYS)
    yield service
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("person", "form"), [("Jane.Doe@Example.COM", "a"), ("jörg+x@Example.org", "b")])
def test_a_tag_is_minted_and_read_offline(offline: Service, person: str, form: str) -> None:
    (minted,) = offline.rows("tag", "mint", "acme", "12", person)

    assert set(minted) == {"tag", "address", "stored"}
    assert minted["tag"].startswith(form)
    assert (minted["address"], minted["stored"]) == (f"u+{minted['tag']}@unsub.example.com", False)
    canonical = {"a": JANE, "b": "jörg+x@example.org"}[form]
    assert offline.rows("tag", "read", minted["address"].upper()) == [
        {"sender": "acme", "group": 12, "recipient": canonical}
    ]


def test_for_people_a_tag_is_plain_words(offline: Service) -> None:
    assert offline.command("tag", "mint", "acme", "0", JANE).stdout == f"{address_of(0)}\n"
    assert offline.command("tag", "read", address_of(0)).stdout == f"acme 0 {JANE}\n"


def address_of(group: int) -> str:
    """Return Jane's address."""
    return mint(Keyring((bytes.fromhex(MASTERS[0]),)), Tag("acme", group, JANE), _TEMPLATE).address


def test_an_address_that_no_key_signed_is_refused(offline: Service) -> None:
    forged = address_of(1).replace("-acme-1-", "-acme-2-")

    refused(offline.command("tag", "read", forged, "--json"), 65, "tag in an address of .* no active key of its sender")
    refused(offline.command("tag", "read", opaque(1), "--json"), 65, "tag in an address of .* no active key")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("acme", "1", "jane"), "address of 4 characters: expected local-part@domain"),
        (("acme", "4294967296", JANE), "group 4294967296: expected 0 to 4294967295"),
    ],
)
def test_what_fits_no_tag_is_refused(offline: Service, words: tuple[str, ...], message: str) -> None:
    refused(offline.command("tag", "mint", *words, "--json"), 65, message)


@pytest.mark.parametrize("missing", ["secret_keys", "address"])
def test_minting_needs_keys_and_a_template(tmp_path: Path, missing: str) -> None:
    settings = {name: value for name, value in KEYS.items() if name != missing}

    done = Service(tmp_path, **settings).command("tag", "mint", "acme", "1", JANE)

    refused(done, 78, f"UNSUBD_{missing.upper()}: no")
    assert not (tmp_path / "data").exists()


def test_headers_are_the_two_lines(offline: Service) -> None:
    refused(offline.command("headers", "acme", "12", JANE), 78, "UNSUBD_PUBLIC_URL: not set, .*--mailto-only")
    tag = address_of(12).removeprefix("u+").partition("@")[0]
    first = f"List-Unsubscribe: <mailto:u+{tag}@unsub.example.com>"

    assert offline.command("headers", "acme", "12", JANE, "--mailto-only").stdout == f"{first}\n"
    offline.env["UNSUBD_PUBLIC_URL"] = "https://unsub.example.com/"
    assert offline.command("headers", "acme", "12", JANE).stdout == (
        f"{first}, <https://unsub.example.com/u/{tag}>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
    )


@pytest.mark.fault
def test_a_long_address_is_stored_and_then_readable(tmp_path: Path) -> None:
    service = Service(tmp_path, **KEYS, public_url="https://unsub.example.com")

    (minted,) = service.rows("tag", "mint", "acme", "12", LONG)

    assert minted["stored"] is True
    assert re.fullmatch("h[a-z2-7]{26}", minted["tag"])
    assert service.rows("tag", "read", minted["address"]) == [{"sender": "acme", "group": 12, "recipient": LONG}]
    assert f"/u/{minted['tag']}>" in service.command("headers", "acme", "12", LONG).stdout
    (explained,) = service.rows("explain", written(tmp_path, "one.eml", mail(minted["address"], "one")))
    assert [each["recipient"] for each in explained["requests"]] == [LONG]


# --- accounts


@pytest.fixture
def service(tmp_path: Path, redis_url: str) -> Service:
    """An installation on an empty Redis."""
    return Service(tmp_path, redis_url=redis_url, **KEYS)


@pytest.fixture
def acme(service: Service, redis_url: str) -> Service:
    """The same with a sender and its group 1."""
    with Redis.from_url(redis_url) as client:
        Accounts(client).add_sender("acme")
        Accounts(client).add_group("acme", "Weekly news", "")
    return service


@pytest.mark.fault
def test_senders_and_their_keys(service: Service, redis_url: str) -> None:
    added = service.command("sender", "add", "acme", "--name", "Acme Inc")

    assert added.stdout.splitlines()[-1] == "acme"
    assert "addresses up to 37 characters stay readable" in added.stdout
    [row] = service.rows("sender", "list")
    assert (row["sender"], row["name"], row["opaque"]) == ("acme", "Acme Inc", False)
    refused(service.command("sender", "add", "acme"), 65, "sender 'acme': exists already")
    key = service.last_line("sender", "key", "acme")
    assert re.fullmatch(r"SG\.[\w-]{22}\.[\w-]{43}", key)
    with Redis.from_url(redis_url) as client:
        assert client.hlen("unsubd:api-keys") == 1
        assert key.encode() not in b"".join(each for row in client.hgetall("unsubd:api-keys").items() for each in row)
    refused(service.command("sender", "key", "beta"), 65, "sender 'beta': not registered")


@pytest.mark.fault
def test_groups(service: Service) -> None:
    service.last_line("sender", "add", "acme")

    assert service.last_line("group", "add", "acme", "Weekly news", "--description", "Every Tuesday") == "1"
    assert service.last_line("group", "add", "acme", "Offers", "--id", "4711") == "4711"
    plain = {"archived": False, "essential": False, "is_default": False}
    assert service.rows("group", "list", "acme") == [
        {"id": 1, "name": "Weekly news", "description": "Every Tuesday", **plain},
        {"id": 4711, "name": "Offers", "description": "", **plain},
    ]
    refused(service.command("group", "add", "acme", "Offers"), 65, "group 'Offers': sender 'acme' has one of that name")
    refused(service.command("group", "add", "acme", "More", "--id", "4711"), 65, "group id 4711: used already")
    refused(service.command("group", "add", "beta", "News"), 65, "sender 'beta': not registered")


# --- the check


def suppress(redis_url: str, *rows: tuple[int, str]) -> None:
    """Suppress (group, person) for acme, by a mail of long ago."""
    with Redis.from_url(redis_url) as client:
        Store(client, NAMES).apply(
            [
                Request(
                    request_id("k", "acme", group, person, Action.UNSUBSCRIBE), Action.UNSUBSCRIBE, "acme", group,
                    person, NOON_MS, "imap:INBOX", "k",
                )
                for group, person in rows
            ],
            now_ms=NOON_MS,
        )  # fmt: skip


def test_check_answers_for_each_address(acme: Service, redis_url: str) -> None:
    suppress(redis_url, (1, JANE), (0, "joe@example.com"))
    since = datetime.fromtimestamp(NOON_MS / 1000, UTC).isoformat().replace("+00:00", "Z")

    rows = acme.rows("check", "acme", "1", "Jane.Doe@EXAMPLE.com", "joe@example.com", "ann@example.com")
    assert len({row.pop("version") for row in rows}) == 3
    assert rows == [
        {"recipient": JANE, "suppressed": True, "scope": "group", "since": since, "source": "imap"},
        {"recipient": "joe@example.com", "suppressed": True, "scope": "global", "since": since, "source": "imap"},
        {"recipient": "ann@example.com", "suppressed": False, "scope": None, "since": None, "source": None},
    ]
    assert acme.command("check", "acme", "1", JANE, "ann@example.com").stdout == (
        f"{JANE}  suppressed (group, since {since}, imap)\nann@example.com  allowed\n"
    )


def test_what_cannot_be_checked_is_never_allowed(acme: Service) -> None:
    for words, message in (
        (("beta", "0", JANE), "sender 'beta': not registered"),
        (("acme", "7", JANE), "group 7: sender 'acme' has none of that id"),
        (("acme", "0", JANE, "jane"), "address of 4 characters: expected local-part@domain"),
    ):
        refused(acme.command("check", *words, "--json"), 65, message)


def test_a_store_that_is_away_is_never_allowed(tmp_path: Path, free_port: Callable[[], int]) -> None:
    service = Service(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}", **KEYS)

    refused(service.command("check", "acme", "1", JANE), 75, "UNSUBD_REDIS_URL: the server does not answer")


# --- explain


def test_explain_is_one_line_per_message_and_leaves_no_trace(offline: Service) -> None:
    good = written(offline.folder, "mails/1-good.eml", mail(address(1), "one", body="bye"))
    bad = written(offline.folder, "mails/2-bad.eml", mail(address(1).replace("-acme-1-", "-acme-2-"), "two"))
    bounce = written(offline.folder, "mails/3-bounce.eml", mail(address(1), "three", "Return-Path: <>\r\n"
                                                                "X-Failed-Recipients: x@example.org\r\n"))  # fmt: skip
    stored = written(offline.folder, "mails/4-stored.eml", mail(opaque(1), "four"))

    rows = offline.rows("explain", str(offline.folder / "mails"))

    assert [(row["file"], row["outcome"]) for row in rows] == [
        (good, "honour"), (bad, "quarantine:bad-tag"), (bounce, "ignore:bounce"), (stored, "quarantine:bad-tag"),
    ]  # fmt: skip
    assert all(row["reason"] for row in rows)
    (request,) = rows[0]["requests"]
    assert (request["sender"], request["group"], request["recipient"]) == ("acme", 1, recipient(1))
    assert [row["requests"] for row in rows[1:]] == [[], [], []]
    assert rows[3]["note"] == "a stored tag, and there is no store here to look it up"


def test_explain_for_people_shows_every_hop(offline: Service) -> None:
    path = written(offline.folder, "one.eml", mail(address(1), "one"))

    said = offline.command("explain", path).stdout

    assert [line.split()[0] for line in said.splitlines()] == [path, "read", "decide", "request"]
    assert f"sender=acme group=1 recipient={recipient(1)}" in said


def test_explain_reads_a_providers_body(offline: Service) -> None:
    body = posts.form(email=mail(address(1), "one"), envelope=posts.envelope(address(2), address(3)))
    path = written(offline.folder, "body", body)
    arguments = ("explain", "--provider", "sendgrid", "--content-type", posts.FORM["Content-Type"])

    rows = offline.rows(*arguments, path)

    assert [(row["file"], row["outcome"], row["envelope_to"], row["envelope_from"]) for row in rows] == [
        (path, "honour", address(number), "someone@example.net") for number in (2, 3)
    ]
    assert [[each["recipient"] for each in row["requests"]] for row in rows] == [[recipient(2)], [recipient(3)]]
    assert {row["signature"] for row in rows} == {"not checked: UNSUBD_IN_SENDGRID is not set"}
    cut = written(offline.folder, "cut", body[: len(body) // 2])
    (rejected,) = offline.rows(*arguments, cut)
    assert (rejected["file"], rejected["outcome"], rejected["requests"]) == (cut, "rejected", [])
    assert "its last boundary is missing" in rejected["reason"]


def test_explain_reports_a_signature_and_asks_for_none(offline: Service) -> None:
    offline.env["UNSUBD_IN_RELAY"] = posts.RELAY_SECRET
    body = mail("undisclosed-recipients:;", "one")
    path = written(offline.folder, "body", body)
    headers = posts.relay(body) | {"X-Envelope-To": address(4), "X-Envelope-From": "someone@example.net"}
    arguments = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]

    (signed,) = offline.rows("explain", "--provider", "relay", *arguments, path)
    (unsigned,) = offline.rows("explain", "--provider", "relay", "--content-type", "message/rfc822", path)
    (wrong,) = offline.rows("explain", "--provider", "relay", "--content-type", "text/plain", path)

    assert (signed["outcome"], signed["signature"], signed["envelope_to"]) == ("honour", "valid", address(4))
    assert signed["envelope_from"] == "someone@example.net"
    assert unsigned["signature"].startswith("refused: no proof")
    assert (unsigned["outcome"], unsigned["envelope_to"]) == ("quarantine:no-tag", None)
    assert wrong["outcome"] == "rejected"


def test_explain_changes_nothing_in_redis(service: Service, redis_url: str) -> None:
    paths = [
        written(service.folder, f"mails/{number}.eml", mail(to, str(number)))
        for number, to in enumerate([address(1), opaque(1), "info@unsub.example.com"])
    ]
    with Redis.from_url(redis_url) as client:
        service.rows("explain", *paths)
        assert client.dbsize() == 0
        service.last_line("sender", "add", "acme")
        tag = mint(Keyring((bytes.fromhex(MASTERS[0]),)), Tag("acme", 1, recipient(1)), _TEMPLATE, opaque=True)
        StoredTags(client).keep([(tag, Tag("acme", 1, recipient(1)))])
        before = contents(client)
        service.env["UNSUBD_SECRET_KEYS"] = f"{'33' * 32},{KEYS['secret_keys']}"  # a start would remember the new one

        rows = service.rows("explain", *paths)

        assert [row["outcome"] for row in rows] == ["honour", "honour", "quarantine:no-tag"]
        assert contents(client) == before
    assert not (service.folder / "data").exists()


def test_explain_says_when_the_store_cannot_be_asked(tmp_path: Path, free_port: Callable[[], int]) -> None:
    service = Service(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}", **KEYS)

    (row,) = service.rows("explain", written(tmp_path, "one.eml", mail(opaque(1), "one")))

    assert row["outcome"] == "quarantine:bad-tag"
    assert "a stored tag, and the store cannot be asked: UNSUBD_STORE_URL: the server does not" in row["note"]


@pytest.mark.parametrize("words", [("deliver",), ("explain", "--provider", "relay")])
def test_a_file_that_is_not_there_is_bad_data(offline: Service, words: tuple[str, ...]) -> None:
    gone = str(offline.folder / "gone.eml")

    refused(offline.command(*words, gone, "--json"), 65, f"{gone}: No such file or directory, expected a message file")


def test_an_unknown_provider_is_bad_data(offline: Service) -> None:
    path = written(offline.folder, "body", b"x")

    refused(offline.command("explain", "--provider", "pigeon", path), 65, "provider 'pigeon': expected one of ")


# --- deliver


@pytest.mark.fault
def test_deliver_tells_the_effect_that_a_worker_had(acme: Service, redis_url: str) -> None:
    first = written(acme.folder, "1.eml", mail(address(1), "one"))
    second = written(acme.folder, "2.eml", mail("info@unsub.example.com", "two"))
    with acme.running("work", ready=False):
        rows = acme.rows("deliver", first, second)
        piped = acme.command("deliver", "-", "--json", given=mail(address(1), "three"))

    assert [(row["file"], row["outcome"]) for row in rows] == [(first, "honour"), (second, "quarantine:no-tag")]
    (request,) = rows[0]["requests"]
    assert {name: request[name] for name in ("sender", "group", "recipient", "effect")} == {
        "sender": "acme", "group": 1, "recipient": recipient(1), "effect": "added",
    }  # fmt: skip
    assert rows[1]["requests"] == []
    row = json.loads(piped.stdout)
    assert (row["file"], row["requests"][0]["effect"], piped.stderr) == ("-", "already-present", "")
    with Redis.from_url(redis_url) as client:
        assert Store(client, NAMES).row("acme", 1, recipient(1)) is not None
    assert "event=honour" in acme.log.read_text()
    assert "person" not in acme.log.read_text()


@pytest.mark.fault
def test_deliver_without_a_worker_says_queued_and_runs_no_job(service: Service, redis_url: str) -> None:
    path = written(service.folder, "1.eml", mail(address(1), "one"))

    begun = time.monotonic()
    (row,) = service.rows("deliver", path)

    assert [request["effect"] for request in row["requests"]] == ["queued"]
    assert 10 <= time.monotonic() - begun < 40
    with Redis.from_url(redis_url) as client:
        assert client.llen("rq:queue:unsubd") == 1
        assert Store(client, NAMES).row("acme", 1, recipient(1)) is None
        assert client.keys("unsubd:ledger:*") == []


def test_deliver_of_what_is_durable_ends_well_even_when_redis_goes_away(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    service = Service(tmp_path, redis_url=redis.url, **KEYS)
    path = written(tmp_path, "1.eml", mail(address(1), "one"))
    process = subprocess.Popen(
        [UNSUBD, "deliver", path, "--json"], env=service.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    client = redis.client()
    until(lambda: client.llen("rq:queue:unsubd") == 1, what="the job")
    redis.stop()

    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert [request["effect"] for request in json.loads(out)["requests"]] == ["queued"]


# --- status, config, keys, doctor


def test_status_has_what_scripts_read(service: Service) -> None:
    (state,) = service.rows("status")

    assert {"queue", "sources", "quarantine", "clock"} <= set(state)
    assert {"queued", "started", "scheduled", "failed", "finished", "oldest_s"} <= set(state["queue"])
    assert state["workers"] == []
    assert state["quarantine"] == {"total": 0, "by_reason": {}}
    assert abs(state["clock"]["skew_ms"]) < 5000
    assert state["durability"] == "appendfsync always"


def test_config_hides_every_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-token\n")
    settings = {
        "redis_url": "redis://:s3cret-redis@h/0", "admin_token_file": str(tmp_path / "token"), "imap_password": "s3cret",
        "imap_news_password": "s3cret-news", "in_relay": "bearer:s3cret", "workers": "3",
    }  # fmt: skip
    service = Service(tmp_path, **settings, **KEYS)

    rows = service.rows("config")

    assert {"name", "value", "from", "is"} == set(rows[0])
    by_name = {row["name"]: row for row in rows}
    assert by_name["UNSUBD_WORKERS"]["value"] == "3"
    assert by_name["UNSUBD_REDIS_URL"]["value"] == "redis://:***@h/0"
    assert by_name["UNSUBD_STORE_URL"]["value"] == ""
    given = {name for name, row in by_name.items() if row["from"] == "environment"}
    assert {"UNSUBD_ADMIN_TOKEN", "UNSUBD_IMAP_PASSWORD", "UNSUBD_REDIS_URL", "UNSUBD_SECRET_KEYS"} <= given
    assert "UNSUBD_STORE_URL" not in given
    plain = service.command("config").stdout
    assert len(plain.splitlines()) == len(rows)
    for said in (plain, json.dumps(rows)):
        assert "s3cret" not in said
        assert MASTERS[0] not in said
    assert not (tmp_path / "data").exists()


@pytest.mark.fault
def test_a_lost_key_is_given_up_by_its_fingerprint(tmp_path: Path, redis_url: str) -> None:
    old, new = MASTERS
    names = [name for ring in (old, new) for name in Keyring((bytes.fromhex(ring),)).fingerprints()]
    with Redis.from_url(redis_url) as client:  # both were active once, then the old one was lost
        ring = Keyring((bytes.fromhex(old), bytes.fromhex(new)))
        require_masters(client, ring)
        pseudonym_key(client, ring)
    service = Service(tmp_path, redis_url=redis_url, secret_keys=new)
    refused(service.command("status"), 78, f"UNSUBD_SECRET_KEYS: .*{names[0]}.* unsubd keys retire {names[0]}")

    assert service.last_line("keys", "retire", names[0]) == f"retired {names[0]}"

    assert service.rows("keys", "list") == [{"fingerprint": names[1], "active": True, "in_use": True}]
    refused(service.command("keys", "retire", names[0]), 65, f"fingerprint '{names[0]}': not in use")


def test_doctor_names_the_remedy_when_no_worker_is_alive(service: Service, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.set("unsubd:ran", 1)  # else nothing runs yet, and nobody misses it
    done = service.command("doctor", "--json")

    assert done.returncode == 69
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    broken = [row for row in findings if not row["ok"]]
    assert [(row["layer"], row["verdict"], row["detail"]) for row in broken] == [
        ("worker", "FAIL", "no worker is alive, expected at least one")
    ]
    assert broken[0]["remedy"] == "start unsubd run, or unsubd work"
    layers = {
        "settings",
        "redis",
        "clock",
        "worker",
        "webhook",
        "keys",
        "files",
        "archive",
        "disk",
        "mailbox",
        "web",
        "public",
    }
    assert layers <= {row["layer"] for row in findings}


# --- usage


@pytest.mark.parametrize(
    "words",
    [(), ("nonsense",), ("check", "acme", "one", JANE), ("demo", "--count", "2")],
    ids=" ".join,
)
def test_wrong_usage_is_64_and_leaves_no_trace(offline: Service, words: tuple[str, ...]) -> None:
    done = offline.command(*words)

    assert (done.returncode, done.stdout) == (64, "")
    assert "Usage: unsubd" in done.stderr


def test_help_names_every_command(offline: Service) -> None:
    done = offline.command("--help")

    assert done.returncode == 0
    for name in ("run", "poll", "lmtp", "work", "web", "sender", "group", "keys", "tag", "headers", "check", "deliver", "explain",
                 "doctor", "status", "demo", "config"):  # fmt: skip
        assert re.search(rf"^  {name} +\S", done.stdout, re.M), name


# --- demo


def processes_in(folder: Path) -> list[int]:
    """The processes whose temporary files go to *folder*: the demo, its parts and its Valkey, whoever their parent is."""
    found = []
    for each in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}\0".encode() in each.read_bytes() + b"\0":
                found.append(int(each.parent.name))
        except OSError:
            continue  # it ended, or is another user's
    return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Service]:
    """Where a demo runs; whatever it leaves fails the test."""
    service = Service(tmp_path)
    temporary = tmp_path / "t"
    temporary.mkdir()
    service.env["TMPDIR"] = str(temporary)
    yield service
    until(lambda: not processes_in(temporary), 10, "the end of every process")
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "data").exists()


def test_demo_ends_with_every_effect(stage: Service) -> None:
    done = stage.command("demo", "--count", "6")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 of 6 requests have their effect."
    assert "quarantine: 1 x quarantine:bad-tag" in done.stdout
    assert "quarantine: 1 x quarantine:no-tag" in done.stdout
    assert "@example.com" in done.stdout
    assert "jane.doe@" not in done.stdout + done.stderr


@pytest.mark.fault
@pytest.mark.parametrize("after", ["begun", "working"])
def test_ctrl_c_on_demo_leaves_no_process(stage: Service, after: str) -> None:
    temporary = Path(stage.env["TMPDIR"])
    with stage.log.open("wb") as log:
        process = subprocess.Popen(
            [UNSUBD, "demo", "--count", "2000"], env=stage.env, stdout=log, stderr=log, start_new_session=True
        )
    enough = {"begun": 2, "working": 4}[after]
    until(lambda: len(processes_in(temporary)) >= enough, what=f"{enough} processes")

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everyone in the foreground hears it

    assert process.wait(20) != 0
    assert "Traceback" not in stage.log.read_text()
