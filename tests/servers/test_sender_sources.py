"""Sender sources on a real Redis: what is kept, what a table answers, and the commands, in the way to the request."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from handlers.errors import QueueUnavailable, Rejected, UnknownAccount
from handlers.foreign import ForeignToken, KnownRecipient, foreign_lookups, read_foreign, token_digest
from handlers.sender_source import Kind, SenderSource, Trust
from handlers.tag import Tag
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service
from tests.unit.letters import read
from worker import server
from worker.accounts import Accounts
from worker.sender_sources import SenderSources

FIXED = SenderSource("acme", Kind.ADDRESS, "unsubscribe@acme.example", 0, Trust.DMARC, "mx.acme.example")
CIVI = SenderSource("acme", Kind.CIVICRM, "u.{job}.{queue}.{token}@civi.example", 1)
JANE = "jane@example.com"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with server.connect(redis_url) as client:
        yield client


@pytest.fixture
def sources(client: redis.Redis) -> SenderSources:
    accounts = Accounts(client)
    for sender in ("acme", "beta"):
        accounts.add_sender(sender)
        accounts.add_group(sender, "News", "")
    return SenderSources(client)


def answer(sources: SenderSources, token: str, sender: str = "acme") -> Tag | int | None:
    key = ForeignToken(sender, token_digest(token))
    return sources.lookup([key]).get(key)


# --- sources


def test_a_source_is_kept_listed_and_removed(sources: SenderSources) -> None:
    other = SenderSource("beta", Kind.ADDRESS, "unsubscribe@acme.example", 2)
    for each in (FIXED, CIVI, other):
        sources.add(each)

    assert sources.sources("acme") == [CIVI, FIXED]
    assert sources.sources() == [CIVI, FIXED, other]
    assert sources.by_id("acme", FIXED.id) == FIXED
    assert sources.remove("acme", FIXED.id) is False
    assert sources.sources("acme") == [CIVI]


def test_adding_again_replaces(sources: SenderSources) -> None:
    sources.add(FIXED)
    again = SenderSource("acme", Kind.ADDRESS, "Unsubscribe@Acme.Example", 1)

    kept = sources.add(again)

    assert sources.sources() == [kept]
    assert (kept.id, kept.group, kept.trust) == (FIXED.id, 1, Trust.NONE)


@pytest.mark.parametrize(
    ("source", "error", "why"),
    [
        (SenderSource("nobody", Kind.ADDRESS, "u@x.example"), UnknownAccount, "sender 'nobody': not registered"),
        (SenderSource("acme", Kind.ADDRESS, "u@x.example", 2), UnknownAccount, "group 2: sender 'acme' has none"),
        (SenderSource("acme", Kind.ADDRESS, "u"), Rejected, "expected local-part@domain"),
        (SenderSource("acme", Kind.LOOKUP, "{a}{b}@x"), Rejected, "with text between any two"),
    ],
)
def test_a_wrong_source_is_refused(
    sources: SenderSources, source: SenderSource, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        sources.add(source)

    assert sources.sources() == []


def test_a_source_of_another_sender_is_unknown(sources: SenderSources) -> None:
    sources.add(FIXED)

    for sender, source_id in (("beta", FIXED.id), ("acme", "0" * 8)):
        with pytest.raises(UnknownAccount, match=f"^source '{source_id}': sender '{sender}' has none of that id"):
            sources.remove(sender, source_id)


# --- tables


def test_a_token_names_its_recipient_and_group(sources: SenderSources) -> None:
    table = ["token,recipient,group\n", "0123456789abcdef, Jane@Example.com\n", '"AbCdEfGh",john@example.com,1\n', "\n"]

    done = sources.import_tokens("acme", 0, table)

    assert (done.stored, done.refused) == (2, 0)
    assert answer(sources, "0123456789abcdef") == Tag("acme", 0, JANE)
    assert answer(sources, "AbCdEfGh") == answer(sources, "abcdefgh") == Tag("acme", 1, "john@example.com")
    assert answer(sources, "0123456789abcdee") is None
    assert answer(sources, "0123456789abcdef", "beta") is None


def test_two_tokens_that_case_alone_tells_apart_are_read_exactly_or_not_at_all(sources: SenderSources) -> None:
    for table in (
        ["aBcdefgh,one@x.example"],
        ["AbCDEFGH,two@x.example", "zzzzzzzz,three@x.example", "ZZZZZZZZ,four@x.example"],
    ):
        sources.import_tokens("acme", 0, table)

    assert answer(sources, "aBcdefgh") == Tag("acme", 0, "one@x.example")
    assert answer(sources, "AbCDEFGH") == Tag("acme", 0, "two@x.example")
    assert answer(sources, "ZZZZZZZZ") == Tag("acme", 0, "four@x.example")
    assert answer(sources, "abcdefgh") is answer(sources, "zzzzzzzz") is None


def test_importing_again_replaces(sources: SenderSources) -> None:
    for recipient in ("one@x.example", "two@x.example", "two@x.example"):
        sources.import_tokens("acme", 0, [f"AbCdEfGh,{recipient}"])

    assert answer(sources, "AbCdEfGh") == answer(sources, "abcdefgh") == Tag("acme", 0, "two@x.example")


def test_a_bad_line_is_refused_alone_and_without_its_values(sources: SenderSources) -> None:
    table = [
        "longtoken,jane\n", "short,jane@example.com\n", "longtoken\n", "long token,jane@example.com\n",
        "longtoken,jane@example.com,2\n", "longtoken,jane@example.com,x\n", "longtoken,jane@example.com,1,2\n",
        "x" * 200_000 + ",jane@example.com\n", "longtoken\udcff,jane@example.com\n", "goodtoken,jane@example.com,1\n",
    ]  # fmt: skip

    done = sources.import_tokens("acme", 0, table)

    assert (done.stored, done.refused) == (1, 9)
    assert answer(sources, "goodtoken") == Tag("acme", 1, JANE)
    assert [problem.partition(": ")[0] for problem in done.problems] == [f"line {number}" for number in range(1, 10)]
    assert not any("jane" in problem or "longtoken" in problem for problem in done.problems)
    assert (
        done.problems[4]
        == "line 5: group of 1 characters, expected the id of one of the sender's, see: unsubd group list"
    )


def test_known_recipients(sources: SenderSources, client: redis.Redis) -> None:
    done = sources.import_known("acme", ["Jane@Example.com\n", "\n", "nobody\n", " john@example.com "])

    found = sources.lookup(
        [KnownRecipient("acme", JANE), KnownRecipient("acme", "x@y.example"), KnownRecipient("beta", JANE)]
    )
    assert (done.stored, done.refused, done.problems) == (2, 1, ("line 3: expected one address",))
    assert found == {KnownRecipient("acme", JANE): 1}
    assert not any(b"jane" in member for member in client.smembers("unsubd:known:acme"))


def test_tables_go_with_the_last_source(sources: SenderSources, client: redis.Redis) -> None:
    sources.add(FIXED)
    sources.add(CIVI)
    sources.import_tokens("acme", 0, ["goodtoken,jane@example.com"])
    sources.import_known("acme", [JANE])

    assert sources.remove("acme", CIVI.id) is False
    assert answer(sources, "goodtoken")
    assert sources.remove("acme", FIXED.id) is True
    assert client.keys("unsubd:foreign:*") == client.keys("unsubd:known:*") == []


def test_a_hundred_thousand_rows_stream_in(sources: SenderSources) -> None:
    counts: list[int] = []
    started = time.monotonic()

    done = sources.import_tokens(
        "acme", 0, (f"token{n:08x},person{n}@example.com\n" for n in range(100_000)), counts.append
    )

    assert (done.stored, done.refused) == (100_000, 0)
    assert counts == list(range(1000, 100_001, 1000))
    assert answer(sources, f"token{99_999:08x}") == Tag("acme", 0, "person99999@example.com")
    assert time.monotonic() - started < 60


def test_no_keys_ask_nothing(sources: SenderSources) -> None:
    assert sources.lookup([]) == {}


def test_from_message_to_request(sources: SenderSources) -> None:
    sources.add(CIVI)
    sources.import_tokens("acme", 1, ["0123456789abcdef,jane@example.com"])
    message = read("From: x@y.example\nTo: u.1.2.0123456789ABCDEF@civi.example\n\n")
    configured = sources.sources()

    found = sources.lookup(foreign_lookups(message, configured))

    assert [each.tag for each in read_foreign(message, configured, found).requests] == [Tag("acme", 1, JANE)]


def test_redis_away_is_unavailable(own_redis: Callable[..., RedisServer]) -> None:
    own = own_redis()
    with server.connect(own.url) as client:
        Accounts(client).add_sender("acme")
        sources = SenderSources(client)
        sources.add(FIXED)
        own.kill()

        for ask in (
            lambda: sources.add(FIXED), lambda: sources.sources(), lambda: sources.remove("acme", FIXED.id),
            lambda: sources.import_tokens("acme", 0, ["goodtoken,jane@example.com"]), lambda: sources.by_id("acme", FIXED.id),
            lambda: sources.import_known("acme", [JANE]), lambda: sources.lookup([KnownRecipient("acme", JANE)]),
        ):  # fmt: skip
            with pytest.raises(QueueUnavailable, match=r"^UNSUBD_REDIS_URL: the server does not answer"):
                ask()


# --- the commands


@pytest.fixture
def service(tmp_path: Path, redis_url: str, sources: SenderSources) -> Service:
    return Service(tmp_path, redis_url=redis_url, secret_keys=MASTERS[0])


@pytest.mark.fault
def test_the_commands_add_list_and_remove(service: Service, sources: SenderSources, tmp_path: Path) -> None:
    (tmp_path / "tokens.csv").write_text("\ufefftoken,recipient\n0123456789abcdef,jane@example.com\n")
    (tmp_path / "known").write_text(f"{JANE}\n")
    trust = ("--trust", "dmarc", "--authserv-id", "mx.acme.example")
    add = ("sender", "source", "add", "acme")

    fixed = service.last_line(*add, "--address", FIXED.pattern, *trust, "--known", str(tmp_path / "known"))
    civi = service.last_line(*add, "--pattern", CIVI.pattern, "--group", "1", "--tokens", str(tmp_path / "tokens.csv"))

    assert (fixed, civi) == (FIXED.id, CIVI.id)
    assert service.rows("sender", "source", "list", "acme") == [
        {"id": CIVI.id, **CIVI.as_wire()}, {"id": FIXED.id, **FIXED.as_wire(), "known_only": True},
    ]  # fmt: skip
    assert (
        "(dmarc mx.acme.example, known recipients only)" in service.command("sender", "source", "list", "acme").stdout
    )
    assert answer(sources, "0123456789abcdef") == Tag("acme", 1, JANE)
    assert "imported tables" not in service.last_line("sender", "source", "remove", "acme", fixed)
    assert "imported tables" in service.last_line("sender", "source", "remove", "acme", civi)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("acme",), "--address and --pattern: expected exactly one"),
        (
            ("acme", "--address", "a@x.example", "--pattern", "{token}@x"),
            "--address and --pattern: expected exactly one",
        ),
        (("acme", "--address", "{token}@x.example"), "--address: kind lookup reads a pattern, expected --pattern"),
        (("acme", "--address", "a@x.example", "--trust", "dmarc"), "authserv-id '': expected with trust dmarc"),
        (("acme", "--address", "a@x.example", "--tokens", "x"), "--tokens: kind address reads no token"),
        (
            ("acme", "--pattern", "{token}@x", "--tokens", "/nowhere"),
            "/nowhere: No such file or directory, expected a file",
        ),
        (("acme", "--pattern", "{token}@x", "--group", "2"), "group 2: sender 'acme' has none of that id"),
        (("nobody", "--address", "a@x.example"), "sender 'nobody': not registered"),
    ],
)
def test_a_command_says_what_is_wrong(service: Service, words: tuple[str, ...], why: str) -> None:
    done = service.command("sender", "source", "add", *words)

    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith(f"unsubd: {why}")
    assert service.rows("sender", "source", "list", "acme") == []


def test_refused_lines_are_said_and_the_rest_is_stored(
    service: Service, sources: SenderSources, tmp_path: Path
) -> None:
    (tmp_path / "tokens.csv").write_text("0123456789abcdef,jane@example.com\nshort,jane@example.com\n")

    done = service.command(
        "sender", "source", "add", "acme", "--pattern", "{token}@x", "--tokens", str(tmp_path / "tokens.csv")
    )

    assert done.returncode == 65
    assert "tokens.csv: line 2: token of 5 characters, expected 8 to 200 without spaces" in done.stdout
    assert "tokens.csv: 1 stored, 1 refused" in done.stdout
    assert answer(sources, "0123456789abcdef") == Tag("acme", 0, JANE)
