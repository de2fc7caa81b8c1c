"""The error tree: who is at fault decides retries, HTTP status and exit code, and it is decided here.

`Rejected`: the input is at fault, repeating cannot help. `Unavailable`: the world is at fault, repeating may help.
`ConfigError` stands outside the tree so that no handler of the two swallows it: it stops the process.
A message says what is wrong, the value (never a tag or an address), what was expected, and what to do.
"""

EX_USAGE = 64
EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_CONFIG = 78


class UnsubdError(Exception):
    """Any failure that unsubd names itself.

    Shape:   told: what is wrong. remedy: what to do, where that can be said apart. The text holds both.
    """

    def __init__(self, told: str = "", remedy: str = "") -> None:
        super().__init__(_text(told, remedy))
        self.told, self.remedy = told, remedy


class Rejected(UnsubdError, ValueError):
    """Permanent: the input is at fault."""


class AddressError(Rejected):
    """Not an email address."""


class TagMalformed(Rejected):
    """No tag, or an unreadable one."""


class TagForged(Rejected):
    """A tag that no key of its sender signed."""


class SignatureInvalid(Rejected):
    """A webhook without a valid proof of its origin."""


class CredentialsMissing(SignatureInvalid):
    """A webhook without the basic authentication that its sender has and sends only when asked."""


class PayloadInvalid(Rejected):
    """A webhook body that can never be understood."""


class ContentTypeInvalid(PayloadInvalid):
    """A webhook body of the wrong type: its set-up is wrong, whoever sends it should keep the mail."""


class UnknownAccount(Rejected):
    """A sender or group that nobody registered."""


class Conflict(Rejected):
    """Right by itself, but something that is there already stands against it."""


class Unavailable(UnsubdError):
    """Temporary: the world is at fault."""


class MailboxUnavailable(Unavailable):
    """The IMAP server cannot be reached, or stopped answering."""


class QueueUnavailable(Unavailable):
    """The queue's Redis does not answer, or the queue is full."""


class StoreUnavailable(Unavailable):
    """The store's Redis does not answer."""


class ConfigError(ValueError):
    """A setting is wrong: refuse to start, never retry. Shape: as `UnsubdError`."""

    def __init__(self, told: str = "", remedy: str = "") -> None:
        super().__init__(_text(told, remedy))
        self.told, self.remedy = told, remedy


def _text(told: str, remedy: str) -> str:
    return f"{told}: {remedy}" if remedy else told


def exit_code(error: BaseException) -> int:
    """Return the sysexits code for *error*.

    Example:
        >>> exit_code(Rejected("x")), exit_code(StoreUnavailable("x")), exit_code(ConfigError("x"))
        (65, 75, 78)
    """
    if isinstance(error, ConfigError):
        return EX_CONFIG
    if isinstance(error, Unavailable):
        return EX_TEMPFAIL
    if isinstance(error, Rejected):
        return EX_DATAERR
    return EX_SOFTWARE


def http_status(error: BaseException) -> tuple[int, str]:
    """Return the status and the stable code for an answer that *error* ends. A webhook has its provider's codes instead.

    Example:
        >>> http_status(StoreUnavailable("x")), http_status(UnknownAccount("x")), http_status(AddressError("x"))
        ((503, 'unavailable'), (404, 'unknown'), (422, 'invalid'))
    """
    if isinstance(error, Unavailable):
        return 503, "unavailable"
    if isinstance(error, UnknownAccount):
        return 404, "unknown"
    if isinstance(error, Conflict):
        return 409, "conflict"
    if isinstance(error, Rejected):
        return 422, "invalid"
    return 500, "failed"
