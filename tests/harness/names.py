"""A store asked without an installation: under a key of the tests' own. An installation that a test starts has another."""

from collections.abc import Sequence

from worker.accounts import Group
from worker.check import Answer, Question
from worker.store import Store
from worker.store.forgotten import ForgottenNames

NAMES = ForgottenNames(b"k" * 32)


def answers(store: Store, sender: str, group: int, recipients: Sequence[str]) -> list[Answer]:
    """Check as for an ordinary group, whether anybody registered it or not."""
    question = Question(Group(group, sender, "", ""))
    rows = store.asked(sender, group, recipients)
    return [question.answer(recipient, each) for recipient, each in zip(recipients, rows, strict=True)]
