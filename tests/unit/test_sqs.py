"""SES's mail through an SQS queue: the real boto3, a queue on loopback."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import ConfigError, QueueUnavailable, Unavailable
from handlers.request import DecidedMessage, Effect
from tests.harness import sns as aws
from tests.harness.sqs import SENT_MS, Sqs, sqs
from tests.unit.house import mail, opened
from tests.unit.letters import JANE, tagged
from worker import service
from worker.installation import Installation
from worker.quarantine.shelf import Selection
from worker.settings import load_settings
from worker.sources import source_states, sqs_client
from worker.sources.sqs import SqsQueue, TopicRefused
from worker.sources.sqs_client import SqsRefused, SqsUnavailable

RAW = mail().raw
OTHER_TOPIC = aws.TOPIC + "-of-somebody"


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sqs]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with sqs() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.base)
        yield running


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def installation(server: fakeredis.FakeServer) -> Iterator[Installation]:
    with opened(server) as found:
        yield found


@pytest.fixture
def source(installation: Installation, queue: Sqs) -> SqsQueue:
    return SqsQueue(installation, queue.url)


def _notified(raw: bytes | None = RAW, **fields: Any) -> dict[str, Any]:
    return aws.envelope(aws.received(tagged(), raw=raw), **fields)


def _queued(installation: Installation) -> list[DecidedMessage]:
    jobs = installation.queue.rq.get_jobs()
    return [DecidedMessage.from_wire(wire) for job in jobs for wire in job.kwargs["batch"]]


def _quarantined(installation: Installation) -> list[bytes]:
    return list(installation.quarantine.raws(installation.quarantine.ids(Selection())).values())


def _failures(installation: Installation) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in installation.redis.lrange("unsubd:journal", 0, -1)]
    return [line for line in lines if line["event"] == "failed"]


def _state(installation: Installation) -> tuple[str, str, int]:
    [state] = source_states(installation.redis)
    return state["state"], state["detail"], state["messages"]


# -- what is accepted


@pytest.mark.parametrize("delivery", ["wrapped", "raw"])
def test_a_mail_has_its_effect_and_leaves_the_queue(
    source: SqsQueue, queue: Sqs, installation: Installation, delivery: str
) -> None:
    queue.send(_notified() if delivery == "wrapped" else aws.received(tagged(), raw=RAW))

    assert (source.take(), source.take(), queue.left()) == (1, 0, 0)
    [[result]] = installation.intake.record(_queued(installation))
    assert (result["recipient"], result["effect"]) == (JANE.recipient, Effect.ADDED.value)


def test_a_crash_before_the_deletion_repeats_the_mail_to_one_effect(
    source: SqsQueue, queue: Sqs, installation: Installation
) -> None:
    queue.send(_notified())
    with patch.object(source._client, "delete", autospec=True, side_effect=SystemExit), pytest.raises(SystemExit):
        source.take()
    assert queue.left() == 1
    queue.show_again()

    assert (source.take(), queue.left()) == (1, 0)
    installation.intake.record(_queued(installation))
    assert len(list(installation.ledger.records())) == 1


def test_what_was_moved_back_is_as_old_as_its_publishing(
    source: SqsQueue, queue: Sqs, installation: Installation
) -> None:
    earlier_s = SENT_MS / 1000 - 86400
    queue.send(_notified(at_s=earlier_s), _notified(at_s=SENT_MS / 1000 + 9999), _notified(Timestamp="today"))
    source.take()

    assert [each.requests[0].at_ms for each in _queued(installation)] == [int(earlier_s * 1000), SENT_MS, SENT_MS]


def test_ten_are_received_and_deleted_at_once(source: SqsQueue, queue: Sqs) -> None:
    queue.send(*[_notified(mail(message_id=str(number)).raw) for number in range(11)])

    assert [source.take(), source.take()] == [10, 1]
    assert [each["action"] for each in queue.asked] == ["ReceiveMessage", "DeleteMessageBatch"] * 2


def test_the_stored_message_is_fetched_from_s3(source: SqsQueue, queue: Sqs, installation: Installation) -> None:
    queue.objects["/mail-of-ours/in/abc"] = mail("info@elsewhere.example").raw
    queue.send(aws.envelope(aws.received("other@elsewhere.example")))

    assert source.take() == 1
    assert _quarantined(installation) == [queue.objects["/mail-of-ours/in/abc"]]


def test_a_stored_message_that_is_gone_costs_only_its_text(
    source: SqsQueue, queue: Sqs, installation: Installation
) -> None:
    queue.send(_notified(raw=None))

    assert (source.take(), queue.left()) == (1, 0)
    assert [each.requests[0].recipient for each in _queued(installation)] == [JANE.recipient]


# -- what can never be read


@pytest.mark.parametrize(
    "body", ["hello", "[]", "{}", "[" * 9000, aws.envelope({"notificationType": "Bounce"}), aws.envelope("hello")]
)
def test_what_is_no_mail_is_told_and_deleted(
    source: SqsQueue, queue: Sqs, installation: Installation, body: Any
) -> None:
    queue.send(body, _notified())

    assert (source.take(), queue.left()) == (1, 0)
    [line] = _failures(installation)
    assert (line["kind"], line["detail"].startswith("unreadable, deleted from the queue: ")) == ("sqs", True)
    assert _quarantined(installation) == []


def test_an_unreadable_notification_of_a_mail_is_kept_for_a_person(
    source: SqsQueue, queue: Sqs, installation: Installation
) -> None:
    broken = aws.received(raw=RAW)  # for nobody
    queue.send(aws.envelope(broken))

    assert (source.take(), queue.left(), len(_failures(installation))) == (1, 0, 1)
    assert [json.loads(json.loads(raw)["Message"]) for raw in _quarantined(installation)] == [broken]


def test_a_bug_of_ours_costs_no_mail_and_does_not_repeat(
    source: SqsQueue, queue: Sqs, installation: Installation
) -> None:
    queue.send(_notified())
    with patch("handlers.providers.ses.read", autospec=True, side_effect=KeyError("jane@example.com")):
        assert source.take() == 1

    assert (queue.left(), len(_quarantined(installation))) == (0, 1)
    assert [line["detail"] for line in _failures(installation)] == ["KeyError: quarantined"]


def test_what_says_nothing_of_a_mail_is_deleted(source: SqsQueue, queue: Sqs, installation: Installation) -> None:
    queue.send(aws.envelope("Successfully validated SNS topic for Amazon SES."), aws.subscription())

    assert (source.take(), queue.left()) == (0, 0)
    assert ["to be confirmed" in line["detail"] for line in _failures(installation)] == [True]


# -- what stays in the queue


def test_while_redis_is_away_nothing_is_received(
    source: SqsQueue, queue: Sqs, installation: Installation, server: fakeredis.FakeServer
) -> None:
    queue.send(_notified())
    server.connected = False
    with pytest.raises(QueueUnavailable):
        source.take()
    assert (queue.asked, queue.left()) == ([], 1)
    server.connected = True

    assert (source.take(), queue.left()) == (1, 0)


def test_a_redis_that_goes_away_meanwhile_leaves_the_mail_in_the_queue(
    source: SqsQueue, queue: Sqs, installation: Installation, server: fakeredis.FakeServer
) -> None:
    queue.send(_notified())
    received = source._receive(0)
    server.connected = False
    with pytest.raises(Unavailable):
        source._take(received)
    server.connected = True
    queue.show_again()

    assert (source.take(), queue.left(), len(_queued(installation))) == (1, 0, 1)


def test_another_topic_is_refused_and_keeps_its_mail(queue: Sqs, server: fakeredis.FakeServer) -> None:
    with opened(server, in_ses=f"{aws.TOPIC} basic:sns:pass") as installation:
        source = SqsQueue(installation, queue.url)
        queue.send(
            _notified(TopicArn=OTHER_TOPIC), _notified(TopicArn=None), aws.received(tagged(), raw=RAW), _notified()
        )
        with pytest.raises(TopicRefused, match="UNSUBD_IN_SES: 3 messages stay in the queue") as caught:
            source.take()

        assert (caught.value.taken, queue.left(), len(_queued(installation))) == (1, 3, 1)


# -- AWS's answers


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        ((400, "AccessDeniedException"), SqsRefused, "AWS refused (AccessDeniedException)"),
        ((403, "InvalidClientTokenId"), SqsRefused, "allow sqs:ReceiveMessage on this queue"),
        ((400, "QueueDoesNotExist"), SqsRefused, "no such queue"),
        ((400, "ThrottlingException"), SqsUnavailable, "SQS cannot serve us now"),
        ((500, "InternalFailure"), SqsUnavailable, "500 InternalFailure"),
    ],
)  # fmt: skip
def test_an_error_says_whether_to_wait_or_to_act(
    source: SqsQueue,
    queue: Sqs,
    installation: Installation,
    error: tuple[int, str],
    expected: type[Exception],
    said: str,
) -> None:
    queue.send(_notified())
    queue.error = error
    with pytest.raises(expected) as caught:
        asyncio.run(source.run(once=True))
    state, detail, _ = _state(installation)

    assert (state, detail) == ("refused" if expected is SqsRefused else "waiting", str(caught.value))
    assert said in detail
    assert "jane" not in detail
    queue.error = None
    assert source.take() == 1


def test_a_deletion_that_is_denied_names_its_permission(
    source: SqsQueue, queue: Sqs, installation: Installation
) -> None:
    queue.send(_notified())
    queue.error_of_delete = (400, "AccessDeniedException")

    with pytest.raises(SqsRefused, match="sqs:DeleteMessage"):
        source.take()
    assert len(_queued(installation)) == 1


def test_a_deletion_that_fails_in_part_means_come_again(source: SqsQueue, queue: Sqs) -> None:
    queue.send(_notified())
    received = source._receive(0)
    queue.show_again()

    with pytest.raises(SqsUnavailable, match="1 of 1 accepted messages not deleted"):
        source._take(received)


def test_without_credentials_the_remedy_is_said_and_credentials_given_later_are_found(
    source: SqsQueue, queue: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send(_notified())
    with monkeypatch.context() as bare:
        bare.delenv("AWS_ACCESS_KEY_ID")
        bare.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(SqsRefused, match="NoCredentialsError: expected AWS credentials"):
            source.take()

    assert source.take() == 1


def test_a_host_that_does_not_answer_means_come_again(installation: Installation, queue: Sqs) -> None:
    source = SqsQueue(installation, "http://127.0.0.1:1/111111111111/mail")

    with pytest.raises(SqsUnavailable, match="SQS does not answer"):
        source.take()


def test_without_boto3_the_extra_is_named(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_client, "find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=r"pip install 'unsubd\[ses\]'"):
        SqsQueue(installation, "https://sqs.us-east-1.amazonaws.com/111111111111/mail")


# -- the life of the source


def test_one_look_takes_all_there_is(source: SqsQueue, queue: Sqs, installation: Installation) -> None:
    queue.send(*[_notified(mail(message_id=str(number)).raw) for number in range(12)])
    asyncio.run(source.run(once=True))

    assert (_state(installation), queue.left()) == (("idle", "", 12), 0)


def test_a_stop_does_not_wait_for_the_long_poll(source: SqsQueue, queue: Sqs) -> None:
    queue.hold.clear()

    async def stopped_while_polling() -> None:
        task = asyncio.ensure_future(source.run())
        await asyncio.to_thread(queue.polled.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped_while_polling())
    # It ended although the queue still holds its answer back.
    assert (queue.hold.is_set(), queue.asked[0]["WaitTimeSeconds"]) == (False, 20)
    [poll] = [thread for thread in threading.enumerate() if thread.name == "sqs"]
    queue.hold.set()
    poll.join(10)
    assert poll.daemon


def test_the_poller_polls_a_queue_when_there_is_nothing_else(server: fakeredis.FakeServer, queue: Sqs) -> None:
    queue.send(_notified())
    with opened(server, ses_queue_url=queue.url) as installation:
        settings = installation.settings
        service.run_poll(settings, once=True)

        assert (queue.left(), len(_queued(installation))) == (0, 1)
    assert service.parts_of(settings)[:2] == ["web", "poll"]


# -- the setting


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.us-east-1.amazonaws.com/111111111111/mail", "https://sqs.cn-north-1.amazonaws.com.cn/111111111111/mail",
        "http://localhost:9324/000000000000/mail",
    ],
)  # fmt: skip
def test_a_queue_of_aws_or_of_loopback_is_right(url: str) -> None:
    assert load_settings({"UNSUBD_SES_QUEUE_URL": url}).ses_queue_url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.us-east-1.amazonaws.com.evil.example/111111111111/mail", "http://sqs.us-east-1.amazonaws.com/111111111111/mail",
        "https://sqs.us-east-1.amazonaws.com/mail", "https://evil.example/111111111111/mail", "https://sqs.us-east-1.amazonaws.com@evil.example/111111111111/mail",
        "http://169.254.169.254:80/111111111111/mail", "https://sqs.us-east-1.amazonaws.com/111111111111/mail.fifo",
        "https://sqs.us-east-1.amazonaws.com/111111111111/mail\n", "arn:aws:sqs:us-east-1:111111111111:mail",
    ],
)  # fmt: skip
def test_any_other_host_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^UNSUBD_SES_QUEUE_URL: expected https://sqs"):
        load_settings({"UNSUBD_SES_QUEUE_URL": url})
