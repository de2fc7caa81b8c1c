"""What `unsubd explain --provider ses` says of a signature: checked with the certificate, reported, never required."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import sns as aws
from worker.explain import Explainer
from worker.settings import load_settings


@pytest.fixture
def amazon() -> Iterator[aws.Amazon]:
    with aws.amazon() as running:
        yield running


def _signature(amazon: aws.Amazon, folder: Path, post: dict[str, Any], topic: str = aws.TOPIC) -> str:
    settings = load_settings({"UNSUBD_IN_SES": topic, "UNSUBD_DATA_DIR": str(folder), "UNSUBD_SECRET_KEYS": "00" * 32})
    [line] = Explainer(settings, amazon).webhook("ses", {}, json.dumps(post).encode())
    return str(line["signature"])


def test_a_post_that_sns_signed_is_valid(amazon: aws.Amazon, tmp_path: Path) -> None:
    assert _signature(amazon, tmp_path, aws.signed(aws.envelope(aws.received("a@b")))) == "valid"
    assert amazon.asked == [aws.CERTIFICATE_URL]


def test_one_that_was_changed_is_refused_and_explained_all_the_same(amazon: aws.Amazon, tmp_path: Path) -> None:
    post = aws.signed(aws.envelope(aws.received("a@b"))) | {"MessageId": "another"}

    assert _signature(amazon, tmp_path, post).startswith("refused: Signature")


def test_of_another_topic_nothing_is_asked(amazon: aws.Amazon, tmp_path: Path) -> None:
    post = aws.signed(aws.envelope(aws.received("a@b")))

    assert _signature(amazon, tmp_path, post, aws.TOPIC + "-other").startswith("refused: TopicArn")
    assert amazon.asked == []


def test_with_amazon_away_it_is_not_checked(amazon: aws.Amazon, tmp_path: Path) -> None:
    amazon.away = True

    assert _signature(amazon, tmp_path, aws.signed(aws.envelope(aws.received("a@b")))).startswith("not checked: SNS")
