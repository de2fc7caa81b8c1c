"""Who is at fault decides the exit code, and every failure is one line per problem."""

import pytest

from handlers import errors
from handlers.errors import ConfigError, Rejected, Unavailable, exit_code
from worker.cli.failure import explained
from worker.sources.imap import MailboxRefused

CODES = {
    "UnsubdError": 70, "Rejected": 65, "AddressError": 65, "TagMalformed": 65, "TagForged": 65, "SignatureInvalid": 65,
    "CredentialsMissing": 65, "Conflict": 65,
    "PayloadInvalid": 65, "ContentTypeInvalid": 65, "UnknownAccount": 65, "Unavailable": 75, "MailboxUnavailable": 75,
    "QueueUnavailable": 75, "StoreUnavailable": 75, "ConfigError": 78,
}  # fmt: skip
NAMED = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, Exception)]


@pytest.mark.parametrize("error", NAMED)
def test_every_named_error_has_its_sysexits_code(error: type[Exception]) -> None:
    assert exit_code(error("x")) == CODES[error.__name__]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError, KeyError])
def test_anything_else_is_a_bug(error: type[Exception]) -> None:
    assert exit_code(error("x")) == 70


def test_a_refused_mailbox_is_a_wrong_setting() -> None:
    assert exit_code(MailboxRefused("x")) == 78


def test_a_wrong_setting_is_outside_the_tree_so_that_nothing_swallows_it() -> None:
    assert not issubclass(ConfigError, errors.UnsubdError)
    assert not issubclass(Rejected, Unavailable)


@pytest.mark.parametrize(
    ("error", "code"), [(Rejected("one\ntwo"), 65), (Unavailable("one\ntwo"), 75), (ConfigError("one\ntwo"), 78)]
)
def test_a_failure_is_one_line_per_problem(capsys: pytest.CaptureFixture[str], error: Exception, code: int) -> None:
    with pytest.raises(SystemExit) as stop, explained():
        raise error

    assert stop.value.code == code
    assert capsys.readouterr() == ("", "unsubd: one\nunsubd: two\n")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError), explained():
        raise RuntimeError
