"""Imports: every row is counted once and either in the register or among the rejects, whatever stops the work between."""

import csv
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import Rejected, StoreUnavailable, UnknownAccount
from handlers.request import Action, Request, request_id
from tests.unit import house
from tests.unit.house import now_ms
from worker import imports
from worker.imports import Import, Imports
from worker.installation import Installation
from worker.store import Store
from worker.store.row import Row

JANE = "jane@example.com"
DAY_MS = 86_400_000
YEAR_AGO_MS = now_ms() - 365 * DAY_MS
OWN = "email,group,created,source,reason"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


@pytest.fixture
def acme() -> Iterator[Installation]:
    """acme with groups 12, 13 (essential) and 14 (archived); 20 is beta's."""
    with registered() as installation:
        yield installation


@contextmanager
def registered() -> Iterator[Installation]:
    """A new installation with those accounts."""
    with house.opened(fakeredis.FakeServer()) as installation:
        accounts = installation.accounts
        accounts.add_sender("acme")
        accounts.add_group("acme", "Weekly news", "", 12)
        accounts.add_group("acme", "Receipts", "", 13, essential=True)
        accounts.add_group("acme", "Old news", "", 14)
        accounts.edit_group("acme", 14, archived=True)
        accounts.add_sender("beta")
        accounts.add_group("beta", "Beta news", "", 20)
        yield installation


def run(installation: Installation, path: Path, content: str | None = None, group: int = 12, **named: Any) -> Import:
    """Import a list; *content* is written first."""
    if content is not None:
        path.write_text(content)
    return imports.run(installation, "acme", group, path, **{"actor": "ann", **named})


def counts(one: Import) -> tuple[int, int, int, int, int]:
    return one.rows, one.added, one.present, one.stale, one.rejected


def row(installation: Installation, group: int = 12, recipient: str = JANE) -> Row:
    found = installation.store.row("acme", group, recipient)
    assert found is not None
    return found


def wish(action: Action, at_ms: int, source: str, *, group: int = 12, recipient: str = JANE, **more: Any) -> Request:
    wish_id = request_id(f"{at_ms}{source}", "acme", group, recipient, action)
    return Request(wish_id, action, "acme", group, recipient, at_ms, source, "k", **more)


def apply(installation: Installation, *wishes: Request, now: int | None = None) -> None:
    installation.store.apply(wishes, now_ms=now)


def resubscribed(installation: Installation, at_ms: int, recipient: str = JANE, source: str = "page") -> None:
    """They left a month before *at_ms*, and came back then."""
    left = wish(Action.UNSUBSCRIBE, at_ms - 30 * DAY_MS, "imap", recipient=recipient)
    apply(installation, left, now=at_ms)
    seen = row(installation, recipient=recipient).version.hex()
    apply(
        installation, wish(Action.RESUBSCRIBE, at_ms, source, recipient=recipient, seen_version=seen), now=at_ms
    )  # fmt: skip
    assert not row(installation, recipient=recipient).suppressed


def rejects(path: Path) -> list[list[str]]:
    """The rows of the file of rejected rows."""
    target = path if path.name == "other" else path.with_name(path.name + ".rejected.csv")
    return list(csv.reader(io.StringIO(target.read_bytes().decode(), newline=""))) if target.exists() else []


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def exported(installation: Installation, groups: list[int]) -> str:
    """What `unsubd export` writes."""
    rows = [each for each in imports.rows(installation, "acme", groups) if each]
    return "".join(f"{line}\n" for line in [OWN, *(",".join(map(str, each.values())) for each in rows)])


# --- what becomes of a row


def test_a_row_is_held_and_tells_its_import(acme: Installation, path: Path) -> None:
    done = run(acme, path, "email\nJane@Example.com\n")

    found = row(acme)
    assert (found.suppressed, found.held, found.complaint, found.source) == (True, True, False, "import")
    assert (done.sender, done.group, done.file, done.actor, done.done) == ("acme", 12, "list.csv", "ann", True)
    assert Imports(acme.redis).of("acme") == [done]
    assert Imports(acme.redis).of("beta") == []
    assert imports.origin(Imports(acme.redis).of("acme"), found.evidence) == done
    assert imports.origin([done], bytes(8)) is None


def test_a_tag_does_not_lift_what_an_import_stopped(acme: Installation, path: Path) -> None:
    run(acme, path, "email\njane@example.com\n")

    for source, suppressed in (("page", True), ("api", False)):
        back = wish(Action.RESUBSCRIBE, now_ms(), source, seen_version=row(acme).version.hex())
        apply(acme, back)
        assert row(acme).suppressed is suppressed


def test_the_files_date_counts(acme: Installation, path: Path) -> None:
    run(acme, path, f"email,unsubscribed at\njane@example.com,{iso(YEAR_AGO_MS)}\n")

    assert row(acme).time_ms == YEAR_AGO_MS
    assert row(acme).first_seen_s == YEAR_AGO_MS // 1000


def test_without_a_date_the_imports_start_counts(acme: Installation, path: Path) -> None:
    done = run(acme, path, "email,unsubscribed at\njane@example.com,\n")

    assert abs(done.started_ms - now_ms()) < 60_000
    assert row(acme).time_ms == done.started_ms


def test_a_date_to_come_counts_as_now(acme: Installation, path: Path) -> None:
    run(acme, path, f"email,unsubscribed at\njane@example.com,{iso(now_ms() + 365 * DAY_MS)}\n")

    assert abs(row(acme).time_ms - now_ms()) < 60_000


@pytest.mark.parametrize(
    ("date_ms", "stale"), [(None, 1), (YEAR_AGO_MS - DAY_MS, 1), (YEAR_AGO_MS + DAY_MS, 0)],
    ids=["no date", "before", "after"],
)  # fmt: skip
def test_only_a_later_date_wins_over_who_came_back(
    acme: Installation, path: Path, date_ms: int | None, stale: int
) -> None:
    resubscribed(acme, YEAR_AGO_MS)
    date = "" if date_ms is None else iso(date_ms)

    assert counts(run(acme, path, f"email,unsubscribed at\njane@example.com,{date}\n")) == (1, 1 - stale, 0, stale, 0)
    assert row(acme).suppressed is not bool(stale)
    assert row(acme).held


def test_a_complaint_stays_one(acme: Installation, path: Path) -> None:
    run(acme, path, "email,status\njane@example.com,spam complaint\njo@example.com,unsubscribed\n")

    assert (row(acme).complaint, row(acme, recipient="jo@example.com").complaint) == (True, False)


def test_who_is_there_is_already_present(acme: Installation, path: Path) -> None:
    apply(acme, wish(Action.UNSUBSCRIBE, YEAR_AGO_MS, "imap"))

    assert counts(run(acme, path, "jane@example.com\njo@example.com\n")) == (2, 1, 1, 0, 0)
    assert row(acme).source == "imap"


def test_what_cannot_be_used_is_kept_with_the_reason(acme: Installation, path: Path) -> None:
    path.write_bytes(b"email;note;status\njane;J\xfcrgen;\njane@example.com;;\njo@example.com;;subscribed\n;;\n")

    assert counts(run(acme, path)) == (4, 1, 0, 0, 3)

    raw = path.with_name("list.csv.rejected.csv").read_bytes()
    assert raw.splitlines() == [
        b"email;note;status;rejected because",
        b"jane;J\xfcrgen;;address of 4 characters: expected local-part@domain",
        b"jo@example.com;;subscribed;still subscribed: nobody asked",
        b";;;address of 0 characters: expected local-part@domain",
    ]


def test_without_rejected_rows_there_is_no_file(acme: Installation, path: Path) -> None:
    run(acme, path, "jane@example.com\n")

    assert [each.name for each in path.parent.iterdir()] == ["list.csv"]


def test_the_rejects_of_json_are_a_list_again(acme: Installation, path: Path) -> None:
    run(acme, path, '{"email": "j\\ud800@example.com", "n": 1}\n{"email": null}\n{"email": "jane@example.com"}\n')

    header, *rows = rejects(path)
    assert (header, [each[:2] for each in rows]) == (
        ["email", "n", "rejected because"],
        [["j\\ud800@example.com", "1"], ["", ""]],
    )


@pytest.mark.parametrize("form", ["", "plain"])
def test_a_list_without_a_header_needs_no_format(acme: Installation, path: Path, form: str) -> None:
    assert counts(run(acme, path, "Jane,jane@example.com\nJo\n", form=form)) == (2, 1, 0, 0, 1)


# --- groups


def test_the_group_that_a_row_names_counts(acme: Installation, path: Path) -> None:
    lines = [f"p{group}@example.com,{group},2026-01-31T12:00:00Z,page," for group in (0, 12, 13, 14, 20, 99)]

    assert counts(run(acme, path, "\n".join([OWN, *lines]))) == (6, 3, 0, 0, 3)

    for group in (0, 12, 13):
        assert row(acme, group, f"p{group}@example.com").suppressed
    assert [each[1] for each in rejects(path)[1:]] == ["14", "20", "99"]
    assert all("expected one of the sender's" in each[-1] for each in rejects(path)[1:])


def test_an_import_stops_an_essential_group_by_name_and_a_complaint_does_not(acme: Installation, path: Path) -> None:
    assert counts(run(acme, path, "email,status\njane@example.com,\njo@example.com,spam\n", 13)) == (2, 2, 0, 0, 0)

    assert row(acme, 13).suppressed
    assert acme.store.row("acme", 13, "jo@example.com") is None
    assert row(acme, 0, "jo@example.com").complaint


@pytest.mark.parametrize(("sender", "group"), [("acme", 14), ("acme", 20), ("acme", 99), ("gamma", 0)])
def test_a_group_that_is_gone_takes_nobody(acme: Installation, path: Path, sender: str, group: int) -> None:
    path.write_text("jane@example.com\n")

    with pytest.raises(UnknownAccount):
        imports.run(acme, sender, group, path, actor="ann")
    assert Imports(acme.redis).of(sender) == []


@pytest.mark.parametrize(
    ("content", "form"),
    [("", ""), ("id,name\n1,Jane\n", ""), ("email,name\njane@example.com,J\n", "postmark"), ("email\n", "fax")],
)
def test_what_is_no_such_list_is_no_import(acme: Installation, path: Path, content: str, form: str) -> None:
    with pytest.raises(Rejected):
        run(acme, path, content, form=form)
    assert Imports(acme.redis).of("acme") == []


def test_an_export_is_imported_elsewhere_as_it_was(path: Path) -> None:
    with registered() as acme:
        for number in range(12):
            action, group = (Action.UNSUBSCRIBE, Action.COMPLAINT)[number % 2], (0, 12, 13)[number % 3]
            apply(acme, wish(action, YEAR_AGO_MS, "imap", group=group, recipient=f"~p{number}@example.com"))
        path.write_text(content := exported(acme, [0, 12, 13, 14]))
        assert counts(run(acme, path, group=0)) == (12, 2, 10, 0, 0)  # complaints do not stop an essential group

    with registered() as elsewhere:
        assert counts(run(elsewhere, path, group=0)) == (12, 12, 0, 0, 0)
        expected = [line.replace(",imap,", ",import,") for line in content.splitlines()]
        found = exported(elsewhere, [0, 12, 13]).splitlines()
    assert sorted(found) == sorted(line.replace(",13,", ",0,") if "complaint" in line else line for line in expected)


def test_a_forgotten_person_is_counted_and_not_named(acme: Installation, path: Path) -> None:
    run(acme, path, "jane@example.com\njo@example.com\n")
    acme.store.forget(JANE, ["acme"])

    rows = list(imports.rows(acme, "acme", [0, 12]))

    assert [each and each["email"] for each in sorted(rows, key=bool)] == [None, "jo@example.com"]
    assert counts(run(acme, path, "jane@example.com\n")) == (1, 0, 1, 0, 0)
    assert not [each for each in acme.redis.hkeys("unsubd:supp:{acme:0}") if JANE.encode() in each]


# --- counts add up

_PEOPLE = st.sampled_from([f"p{number}@example.com" for number in range(5)] + ["", "jane", "a@b@", "a@x.com,b@y.org"])
_DATES = st.sampled_from(["", iso(YEAR_AGO_MS - 60 * DAY_MS), iso(now_ms() - 1000), "2999-01-01", "soon", "1970-01-01"])
_ROWS = st.tuples(
    _PEOPLE, st.sampled_from(["0", "12", "13", "14", "20", "", "x"]), _DATES, st.just("imap"),
    st.sampled_from(["", "unsubscribe", "complaint", "Complaint", "bounce"]),
)  # fmt: skip


def _usable(cells: tuple[str, ...]) -> bool:
    person, group, date, _, reason = cells
    good = person.startswith("p") and group in ("0", "12", "13") and date not in ("soon", "1970-01-01")
    return good and reason != "bounce"


def _whom(acme: Installation) -> set[tuple[str, str]]:
    """Who is suppressed in which group: a complaint of theirs may come to a row, and change no more than its reason."""
    lines = exported(acme, [0, 12, 13]).splitlines()
    return {(person, group) for person, group, *_ in csv.reader(lines)}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows=st.lists(_ROWS, min_size=1, max_size=12))
def test_every_row_is_counted_once_and_an_import_never_removes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    path = tmp_path_factory.mktemp("import") / "list.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([OWN.split(","), *rows])
    with registered() as acme, patch.object(imports, "_CHUNK", 3):
        apply(acme, wish(Action.UNSUBSCRIBE, YEAR_AGO_MS, "imap", recipient="p0@example.com"))
        resubscribed(acme, YEAR_AGO_MS, "p1@example.com")
        before = _whom(acme)

        one = run(acme, path)
        again = run(acme, path)

        usable = list(filter(_usable, rows))
        for done in (one, again):
            assert done.rows == done.added + done.present + done.stale + done.rejected == len(rows)
            assert done.rejected == len(rows) - len(usable)
        assert (again.added, len(rejects(path)[1:])) == (0, one.rejected)
        assert before <= _whom(acme)
        for person, group, _, _, reason in usable:
            at = 0 if group == "13" and reason.lower() == "complaint" else int(group)
            assert row(acme, at, person).held


# --- one that was left


def _content() -> str:
    people = [("" if number % 3 == 1 else f"p{number % 11}@example.com") for number in range(20)]
    return "\n".join(["email,name", *(f"{each},n{number}" for number, each in enumerate(people))])


def _stop_at(where: str, number: int, error: BaseException) -> Any:
    """Let *error* come at the call number *number* of a method, before it did anything or after."""
    name, _, when = where.partition(" ")
    owner = Store if name == "apply" else Imports
    real: Callable[..., Any] = getattr(owner, name)
    calls = []

    def stopped(*words: Any, **named: Any) -> Any:
        calls.append(words)
        if len(calls) == number and when == "before":
            raise error
        result = real(*words, **named)
        if len(calls) == number:
            raise error
        return result

    return patch.object(owner, name, autospec=True, side_effect=stopped)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), KeyboardInterrupt()], ids=["away", "Ctrl-C"])
@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("where", ["apply before", "apply after", "keep before", "keep after"])
def test_the_same_command_goes_on_as_if_nothing_had_been(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int, error: BaseException
) -> None:
    monkeypatch.setattr(imports, "_CHUNK", 4)
    path.write_text(_content())
    with registered() as undisturbed:
        expected = counts(run(undisturbed, path)), rejects(path), _people(undisturbed)
    path.with_name("list.csv.rejected.csv").unlink()

    with registered() as acme:
        with _stop_at(where, number, error), pytest.raises(type(error)):
            run(acme, path)
        left = Imports(acme.redis).of("acme")
        done = run(acme, path)

        assert (counts(done), rejects(path), _people(acme)) == expected
        assert (len(expected[1]), len(expected[2])) == (1 + 7, 10)
        assert [each.id for each in left] == ([] if (where, number) == ("keep before", 1) else [done.id])
        assert Imports(acme.redis).of("acme") == [done]


def _people(installation: Installation) -> list[str]:
    return sorted(each["email"] for each in imports.rows(installation, "acme", [12]) if each)


def test_what_was_left_may_go_on_without_its_rejects(
    acme: Installation, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_CHUNK", 4)
    path.write_text(_content())
    with _stop_at("apply before", 3, StoreUnavailable("away")), pytest.raises(StoreUnavailable):
        run(acme, path)
    path.with_name("list.csv.rejected.csv").unlink()

    done = run(acme, path)

    assert counts(done) == (20, 10, 3, 0, 7)  # three are named twice
    assert [each[1] for each in rejects(path)] == ["name", "n10", "n13", "n16", "n19"]


def test_another_file_of_rejects_has_those_that_come(
    acme: Installation, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_CHUNK", 4)
    path.write_text(_content())
    with _stop_at("apply before", 3, StoreUnavailable("away")), pytest.raises(StoreUnavailable):
        run(acme, path)
    other = path.with_name("other")
    other.write_text("short\n")

    run(acme, path, rejects=other)

    assert [each[1] for each in rejects(other)] == ["name", "n10", "n13", "n16", "n19"]


def test_a_changed_file_another_group_or_format_is_another_import(acme: Installation, path: Path) -> None:
    with _stop_at("apply before", 1, StoreUnavailable("away")), pytest.raises(StoreUnavailable):
        run(acme, path, "email\njane@example.com\n")
    [left] = Imports(acme.redis).of("acme")

    others = [run(acme, path, group=0), run(acme, path, form="plain"), run(acme, path, "email\njo@example.com\n")]
    [changed] = [run(acme, path, "email\njane@example.com\n")]

    assert len({left.id, *(each.id for each in others)}) == 4
    assert changed.id == left.id
    assert replace(changed, done=False, rows=0, present=0) == left


def test_a_finished_list_again_finds_itself(acme: Installation, path: Path) -> None:
    first = run(acme, path, "jane@example.com\njo@example.com\n")
    again = run(acme, path)

    assert (counts(first), counts(again)) == ((2, 2, 0, 0, 0), (2, 0, 2, 0, 0))
    assert first.id != again.id
    found = Imports(acme.redis).of("acme")
    assert {each.id for each in found} == {first.id, again.id}
    assert imports.origin(found, row(acme).evidence) == first


def test_standard_input_is_imported_to_its_end(acme: Installation, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    told = []
    reading, writing = os.pipe()
    os.write(writing, b"email\njane@example.com\njane\n")
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        done = run(acme, Path("-"), rejects=path.with_name("rejects"), progress=lambda *words: told.append(words))
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)

    assert (counts(done), done.file, done.digest) == ((2, 1, 0, 0, 1), "-", "")
    assert told == [(0, "2 rows, 1 added")]
    assert path.with_name("rejects").exists()


def test_the_journal_has_the_counts_and_no_address(acme: Installation, path: Path) -> None:
    done = run(acme, path, "email\njane@example.com\njane\n")

    line = acme.redis.lrange("unsubd:journal", 0, -1)[0].decode()
    assert done.id in line
    assert JANE not in line


def test_a_header_in_latin_1_is_named_with_its_octet_and_the_remedy(acme: Installation, path: Path) -> None:
    path.write_bytes("prénom;boîte\nJane;j\n".encode("latin-1"))

    with pytest.raises(Rejected, match=r"; the header: octet 0xE9 is no UTF-8, .* iconv -f LATIN1 -t UTF-8 LIST"):
        run(acme, path)


def test_an_address_in_latin_1_is_rejected_with_its_octet_and_the_remedy(acme: Installation, path: Path) -> None:
    path.write_bytes("email;prénom\njane@example.com;Zoé\nzoé@example.com;Zoé\n".encode("latin-1"))

    assert run(acme, path).rejected == 1
    told = path.with_name(f"{path.name}.rejected.csv").read_bytes().decode("latin-1")
    assert "address of 15 characters: octet 0xE9 is no UTF-8, expected UTF-8: of a list in Latin-1, iconv" in told
