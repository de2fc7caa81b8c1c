"""The compliance report: counts that add up, whatever came, from store and files, and harmless whatever it is named."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.errors import Rejected, UnknownAccount
from handlers.request import Action, Outcome
from tests.unit import house
from tests.unit.house import decided, mail, now_ms
from worker import by_hand, clock, entries, sent
from worker import report as reports
from worker.archiving import archive_ended
from worker.cli import report as cli
from worker.counted import HOOK_TEST, KINDS
from worker.installation import Installation
from worker.journal import Journal
from worker.quarantine.resolution import Resolution, Way, resolve
from worker.quarantine.shelf import Selection
from worker.report import Report, as_html, as_json, as_text, report, this_month

HOSTILE = 'imap:<script>alert("x")</script>\x1b[2J\u202e' + "W" * 30
OLD_MS = 1_700_000_000_000  # 14 November 2023


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer(), archive_dir=str(tmp_path / "archive")) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield installation


def record(installation: Installation, *outcomes: Outcome, at_ms: int = 0, start: int = 0) -> None:
    installation.intake.record(
        [
            decided(f"{number:064x}", outcome=each, received_ms=at_ms or now_ms(), recipient=f"p{number}@example.com")
            if each in (Outcome.HONOUR, Outcome.COMPLAINT)
            else decided(f"{number:064x}", outcome=each, received_ms=at_ms or now_ms(), requests=())
            for number, each in enumerate(outcomes, start)
        ]
    )


@given(st.lists(st.sampled_from(Outcome), max_size=40))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_counts_add_up_whatever_came(outcomes: list[Outcome]) -> None:
    with house.opened(fakeredis.FakeServer()) as installation:
        record(installation, *outcomes)

        found = report(installation, this_month())

    assert found.received == len(outcomes) == sum(found.kinds.values()) == sum(found.outcomes.values())
    assert list(found.kinds) == list(KINDS)
    assert sum(found.resolved.values()) == found.kinds["quarantined"]
    assert found.ages.count == sum(found.effects.values()) == found.kinds["honoured"] + found.kinds["complaint"]


def waiting(installation: Installation) -> int:
    return installation.quarantine.count(Selection())


def test_what_stays_in_a_shared_mailbox_is_ignored_and_nobody_waits_for_it(installation: Installation) -> None:
    elsewhere = "info@elsewhere.example"
    lunch = [mail(elsewhere, f"m{number}", subject="Lunch?") for number in range(3)]
    came = [
        *lunch,
        mail(elsewhere, "asks"),
        mail(message_id="tagged"),
        mail(f"u+{'a' * 14}-acme-12-jane_x@unsub.example.com"),
    ]
    installation.intake.record(installation.intake.accept(came, keep_untagged=False).decided)

    found = report(installation, this_month())

    assert found.kinds == {"honoured": 1, "complaint": 0, "ignored": 3, "quarantined": 2}
    assert (found.received, sum(found.outcomes.values()), found.outcomes["left"]) == (6, 6, 3)
    assert found.resolved == {"waiting": waiting(installation)} == {"waiting": 2}
    assert sum(hour.ignored for hour in clock.hours(installation.redis, 2)) == 3
    events = [line["event"] for line in Journal.lines(installation.redis, 10)]
    assert (events.count("left"), events.count("quarantine:no-tag")) == (3, 1)
    assert clock.totals(installation.redis, "source")["maildir:default", "left"] == 3


def test_waiting_is_what_the_quarantine_has_of_the_month(installation: Installation) -> None:
    unread = [mail("info@elsewhere.example", f"m{number}") for number in range(3)]
    installation.intake.record(installation.intake.accept(unread).decided)
    oldest, dismissed, _ = (installation.quarantine.entries([each.key[:32]])[each.key[:32]] for each in unread)
    resolve(installation, Resolution(Way.DISMISSED, "ops", "lunch"), [dismissed])
    installation.quarantine.settle([oldest])  # as if its 90 days were over

    found = report(installation, this_month())

    assert found.resolved == {"waiting": 1, "dismissed": 1, "gone": 1}
    assert (found.resolved["waiting"], found.kinds["quarantined"]) == (waiting(installation), 3)


def test_a_complaint_under_review_and_a_failed_request_wait_too(installation: Installation) -> None:
    complaint, broken = decided("c" * 64, outcome=Outcome.COMPLAINT, requests=()), decided("b" * 64)
    installation.intake.record([complaint, broken])
    installation.quarantine.keep([(replace(mail(), key=complaint.key), complaint)])
    installation.quarantine.keep_failed(
        broken.key, "applying it failed: KeyError", broken.as_wire(), broken.received_ms
    )

    assert report(installation, this_month()).resolved == {"waiting": waiting(installation)} == {"waiting": 2}


def test_what_no_recipient_asked_for_stands_apart(installation: Installation) -> None:
    came_back = decided("k2", requests=(replace(decided("k2").requests[0], action=Action.RESUBSCRIBE),))
    canary = decided("k3", outcome=Outcome.PING, requests=(), evidence={"canary": "n1"})
    installation.intake.record([decided("k1"), came_back, canary, decided("k4", sender=HOOK_TEST)])
    by_hand.enter(installation, Action.UNSUBSCRIBE, "acme", 12, ["joe@example.com"], actor="ops", reason="phone")
    entries.suppress(installation, "acme", 12, ["ann@example.com"], actor="key", reason="api")

    found = report(installation, this_month())

    assert (found.received, found.kinds["honoured"], found.apart) == (1, 1, {"entry": 2, "return": 1, "test": 2})
    assert found.effects == {"added": 1}
    assert found.sources == {"imap:INBOX": 1}
    assert (found.ages.count, clock.total(installation.redis, now_ms()).count) == (1, 1)
    assert sum(hour.honoured for hour in clock.hours(installation.redis, 2)) == 1
    assert clock.totals(installation.redis, "sender") == {("acme", "added"): 1}
    counters = Journal.counters(installation.redis)
    assert {name: count for (metric, name), count in counters.items() if metric == "unsubd_messages_total"} == {
        "honour": 1, "entry": 2, "return": 1, "test": 2,
    }  # fmt: skip
    assert sum(count for (metric, _), count in counters.items() if metric == "unsubd_requests_total") == 1
    assert "apart, of no recipient" in "\n".join(as_text(found))


def test_a_month_without_anything_says_so(installation: Installation) -> None:
    found = report(installation, "2024-02")

    assert as_text(found)[1] == "Nothing was received in this month."
    assert "Nothing was received in this month." in as_html(found)
    assert as_json(found)["received"] == 0


def test_an_old_month_is_read_from_the_files_and_once(installation: Installation) -> None:
    record(installation, Outcome.HONOUR, Outcome.BOUNCE, Outcome.NO_TAG, at_ms=OLD_MS)
    before = report(installation, "2023-11")
    assert archive_ended(installation) == 3
    record(installation, Outcome.HONOUR, at_ms=OLD_MS)  # comes again: a copy in the store
    record(installation, Outcome.PING, at_ms=OLD_MS, start=9)  # and one that is new
    record(installation, Outcome.PING, at_ms=OLD_MS + 40 * 86_400_000, start=10)

    after = report(installation, "2023-11")

    assert (before.received, after.received) == (3, 4)
    assert after.kinds == {"honoured": 1, "complaint": 0, "ignored": 2, "quarantined": 1}
    assert report(installation, "2023-12").received == 1


def test_a_message_for_two_people_is_one(installation: Installation) -> None:
    both = decided("k1").requests + decided("k1", recipient="joe@example.org").requests
    installation.intake.record([decided("k1", requests=both)])

    found = report(installation, this_month())

    assert (found.received, found.effects) == (1, {"added": 2})


def test_how_quarantine_ended_and_what_waits(installation: Installation) -> None:
    messages = [mail("info@elsewhere.example", str(each)) for each in range(3)]
    accepted = installation.intake.accept(messages)
    installation.intake.record(accepted.decided)
    ids = installation.quarantine.ids(Selection())[:2]
    chosen = list(installation.quarantine.entries(ids).values())
    resolve(installation, Resolution(Way.DISMISSED, actor="ops", reason="not ours"), chosen)

    found = report(installation, this_month())

    assert found.resolved == {Way.DISMISSED.value: 2, "waiting": 1}
    assert found.kinds["quarantined"] == 3


def test_a_senders_report_has_only_what_concerns_it(installation: Installation) -> None:
    installation.accounts.add_sender("other")
    installation.intake.record([decided("k1"), decided("k2", sender="other"), decided("k3", sender="other")])
    record(installation, Outcome.BOUNCE)

    found = report(installation, this_month(), "other")

    assert (found.received, found.ages.count, [names[1] for names in found.by]) == (2, 2, ["other"])
    with pytest.raises(UnknownAccount):
        report(installation, this_month(), "nobody")


def test_the_worst_cases_and_who_was_mailed(installation: Installation) -> None:
    installation.intake.record([decided("5f" * 32, received_ms=OLD_MS)])
    after = datetime.fromtimestamp(OLD_MS / 1000, UTC) + timedelta(hours=2)
    sent.reported(installation, "acme", [sent.Sent("jane@example.com", 12, after)])

    found = report(installation, "2023-11")

    assert [each.message for each in found.worst] == ["5f" * 6]
    assert found.mailed_after == len(found.cases) == 1
    text = "\n".join(as_text(found))
    assert "message 5f5f5f5f5f5f" in text
    assert "jane" not in text + as_html(found) + json.dumps(as_json(found))


@pytest.mark.parametrize("month", ["2026-13", "2026", "202611", "2026-11\n", "٢٠٢٦-11", "0000-01", ""])
def test_what_is_no_month_is_refused(installation: Installation, month: str) -> None:
    with pytest.raises(Rejected, match="expected a year and a month"):
        report(installation, month)


def test_a_name_that_is_a_script_or_steers_a_terminal_is_harmless(installation: Installation) -> None:
    installation.intake.record([decided("k1", source=HOSTILE), decided("k2", source=HOSTILE, outcome=Outcome.NO_TAG)])

    found = report(installation, this_month())
    page, lines = as_html(found), as_text(found)

    assert found.received == 2
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all(line.isprintable() for line in lines)
    assert not {"\x1b", "\u202e"} & set(page)
    assert json.loads(json.dumps(as_json(found)))["received"] == 2


def test_the_page_needs_nothing_else(installation: Installation) -> None:
    record(installation, *Outcome)

    page = as_html(report(installation, this_month()))

    assert re.findall(r"<script|src=|href=|url\(|@import|https?:", page) == []
    assert page.count("<table") == page.count("</table>") >= 5


def test_times_and_rows_of_a_report_of_sent_mails() -> None:
    good = ["recipient,group,at\n", "jane@example.com,12,1700000000\n", "joe@example.com,0,2023-11-14T23:13:20+01:00\n"]

    found = list(cli._mails(iter(good)))  # type: ignore[arg-type]

    assert {each.at for each in found} == {datetime.fromtimestamp(OLD_MS / 1000, UTC)}
    assert [each.group for each in found] == [12, 0]
    for rows, line in ((["a,b\n"], 1), ([good[0], "j@example.com,x,1\n"], 2), ([*good, "j@example.com,1,soon\n"], 4)):
        with pytest.raises(Rejected, match=f"line {line}: expected"):
            list(cli._mails(iter(rows)))  # type: ignore[arg-type]


def test_a_months_sentence_says_when_the_limit_was_missed() -> None:
    found = Report("2026-11", "", "", ended=True, received=1)
    found.ages = reports.Figures(3, 1.0, timedelta(hours=50).total_seconds(), timedelta(hours=50).total_seconds())

    assert reports.sentence(found).endswith("the slowest took 2 d 2 h, which is more than 48 hours.")
