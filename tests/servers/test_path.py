"""The whole path on real servers: Dovecot, Redis, RQ worker processes, HTTP. Every request once, every message accounted."""

import base64
import hmac
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.harness.dovecot import Mailbox
from tests.harness.mails import APPLE, NEW, OLD, address, mail, recipient
from tests.harness.names import NAMES
from tests.harness.service import MASTERS, Service, until
from worker.store import Store
from worker.store.ledger import Ledger

SECRET = "whsec_" + base64.b64encode(b"a test's secret of some length").decode()


def _signed(body: bytes, message_id: str) -> dict[str, str]:
    timestamp = str(int(time.time()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(base64.b64decode(SECRET[6:]), signed, sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


def _mixed(first: int) -> tuple[list[bytes], set[str], Counter[str]]:
    """500 mails: 400 valid requests in many shapes, 100 of other kinds. Returns them with what must come of them."""
    mails: list[bytes] = []
    honoured: set[str] = set()
    shapes = (
        lambda to: f"<{to}>", lambda to: to.upper(), lambda to: f'"{to}" <{to}>', lambda to: f"<mailto:{to}>",
        lambda to: to.replace("+", "%2B"), lambda to: to.replace("+", " "), lambda to: f"'{to}'",
        lambda to: f"=?utf-8?q?{to.replace('@', '=40').replace('_', '=5F')}?=",
    )  # fmt: skip
    for number in range(first, first + 400):
        to = shapes[number % len(shapes)](address(number, OLD if number % 3 == 0 else NEW))
        mails.append(mail(to, f"valid-{number}", APPLE if number % 4 == 0 else ""))
        honoured.add(recipient(number))
    for number in range(25):
        to = address(first + 400 + number)
        mails.append(mail("info@unsub.example.com", f"none-{first + number}"))
        mails.append(mail(to.replace("-acme-1-", "-acme-2-"), f"forged-{first + number}"))
        mails.append(
            mail(f"<{to}>", f"dsn-{first + number}", "Return-Path: <>\r\nX-Failed-Recipients: x@example.org\r\n")
        )
        mails.append(mail(f"<{to}>", f"away-{first + number}", "Auto-Submitted: auto-replied\r\nX-Autoreply: yes\r\n"))
    expected = Counter({"honour": 400, "quarantine:no-tag": 25, "quarantine:bad-tag": 25})
    return mails, honoured, expected + Counter({"ignore:bounce": 25, "ignore:auto-reply": 25})


def _settings(redis_url: str, dovecot: Mailbox) -> dict[str, str]:
    return {
        "redis_url": redis_url, "secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com",
        "imap_url": dovecot.url, "imap_password": dovecot.password, "imap_ca_file": str(dovecot.ca_file),
        "imap_backlog": "all", "admin_token": "t0ken", "in_relay": SECRET, "workers": "2",
    }  # fmt: skip


def test_500_mails_and_500_posts_each_take_effect_once(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = Service(tmp_path, **_settings(redis_url, dovecot))
    assert service.last_line("sender", "add", "acme") == "acme"
    assert service.last_line("group", "add", "acme", "Weekly news") == "1"
    mails, honoured, outcomes = _mixed(0)
    posts, posted, post_outcomes = _mixed(1000)
    dovecot.append_many(mails)

    with service.running("run"), Redis.from_url(redis_url) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(
                    lambda each: service.post("/in/relay", each[1], **_signed(each[1], f"m{each[0]}")),
                    enumerate(posts),
                )
            )
        assert Counter(answers) == {204: 500}
        ledger = Ledger(client, lambda _: "")
        records = until(lambda: (found := list(ledger.records())) and len(found) >= 1000 and found, 60, "1,000 records")
        until(lambda: len(dovecot.messages("Processed")) == 475, 30, "handled mail moved")

    _assert_accounted(records, outcomes + post_outcomes)
    with Redis.from_url(redis_url) as client:
        suppressed = [name for name, _ in Store(client, NAMES).listed("acme", 1)]
    assert sorted(suppressed) == sorted(honoured | posted)
    left = dovecot.messages()
    assert [b"none-" in raw for _, _, raw in left] == [True] * 25
    assert {"$UnsubdDone"} & set().union(*(flags for _, flags, _ in left)) == set()


def _assert_accounted(records: list[tuple[str, dict[str, Any]]], expected: Counter[str]) -> None:
    assert len(records) == len({key for key, _ in records}) == 1000
    assert Counter(record["outcome"] for _, record in records) == expected
    effects = Counter(result["effect"] for _, record in records for result in record["requests"])
    assert effects == {"added": 800}


@pytest.mark.fault
def test_mail_read_again_changes_nothing(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    service = Service(tmp_path, **_settings(redis_url, dovecot))
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    dovecot.append_many([mail(address(1), "twice"), mail(address(1), "twice")])

    with service.running("run"):
        until(lambda: len(dovecot.messages("Processed")) == 2, 30, "both moved")
        again = service.rows("deliver", str(_file(tmp_path, mail(address(1), "twice"))))

    assert [request["effect"] for request in again[0]["requests"]] == ["added"]  # a repeat hears its first effect
    with Redis.from_url(redis_url) as client:
        assert len(list(Ledger(client, lambda _: "").records())) == 1


def _file(folder: Path, raw: bytes) -> Path:
    path = folder / "again.eml"
    path.write_bytes(raw)
    return path
