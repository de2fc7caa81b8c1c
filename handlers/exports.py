"""Rows of other mail systems' suppression exports: who asked for no more mail, when, and how.

Hides what each system calls its columns, how it writes a date, and which of its rows are nobody's request. A bounce is
an address that does not work, and a row may describe somebody who still wants mail: such a row is rejected with a reason,
since a suppression that nobody asked for loses a reader. Names of columns compare by letters and digits alone, so that
`Created At`, `created_at` and `CreatedAt` are one. Documented by the vendor (+), seen in other people's software that
reads such files (~), unconfirmed (?):

  sendgrid   ~ v3 API: email, created (unix), spam reports: ip. ~ CSV: email,created; bounces: status, reason; reports: ip.
             ? group_id and created_at of all groups' unsubscribes, a group's CSV, whether a CSV's dates are UTC (the v2
             API's were Pacific time)
  mailgun    + address, tags, created_at (RFC 2822); bounces: code, error. Its complaints (address, created_at) look like
             unsubscribes without tags, so `complaint` stays False. ? the CSV that its dashboard writes
  postmark   + the dump's four fields. A ManualSuppression is the reader's (Origin Recipient) or the sender's own. ? CSV
  ses        + account list: EmailAddress, Reason, LastUpdateTime; contacts: UnsubscribeAll. Topics are not read. ? CSV
  sparkpost  + recipient, type, source, description, created, updated; the deprecated booleans are not read. ? who asked
             for an entry of the source Compliance: taken as an unsubscribe
  mailchimp  ~ Email Address, UNSUB_*, CLEAN_*, LAST_CHANGED, LEID. ? the time zone (read as UTC), a complaint's reason
  listmonk   + its source: uuid,email,name,attributes,status,created_at,updated_at; dates as Go prints them. The file does
             not say who left one list only, nor who was blocklisted for bouncing. created_at is when they joined
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from handlers.address import one_address
from handlers.errors import Rejected
from handlers.moment import read_ms
from handlers.tag import MAX_GROUP

Told = Sequence[str | None]  # the cells that decide, in lower case; None: the file has no such column
_BOUNCE = "a bounce: nobody asked"
_SUBSCRIBED = "still subscribed: nobody asked"


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One request of an export.

    Shape:   recipient: canonical. at_ms: None where the file names no time. complaint: a spam complaint, else an
             unsubscribe. group: only in unsubd's own export, else None.
    Units:   at_ms: milliseconds since 1970, UTC.
    """

    recipient: str
    at_ms: int | None
    complaint: bool = False
    group: int | None = None


def _unsubscribe(_: Told) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One system's export.

    Shape:   columns by `_key`. needs: of each set, one column at least. address, dates: the first that is there, of
             dates the first that is not empty. complaint: from the cells of `tells` to `ExportRow.complaint`, or Rejected.
    """

    name: str
    title: str
    address: tuple[str, ...]
    needs: tuple[frozenset[str], ...]
    dates: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    complaint: Callable[[Told], bool] = _unsubscribe
    group: str = ""


def _by_word(column: str, words: Mapping[str, bool | str]) -> Callable[[Told], bool]:
    """Return a function that looks the first cell with a text up: a bool is the answer, a str the reason to reject."""

    def complaint(told: Told) -> bool:
        word = next(filter(None, told), "")
        found = words.get(word, f"{column} of {len(word)} characters: expected {', '.join(filter(None, words))}")
        if isinstance(found, str):
            raise Rejected(found)
        return found

    return complaint


def _listmonk(told: Told) -> bool:
    if {"blocklisted", "blacklisted", "unsubscribed"}.isdisjoint(told):
        raise Rejected("status: expected blocklisted or unsubscribed" if "disabled" in told else _SUBSCRIBED)
    return False


def _sendgrid(told: Told) -> bool:
    reason, ip, *rest = told
    if reason is not None:  # bounces, blocks and invalid addresses have a reason; reports have the reporter's ip
        raise Rejected(_BOUNCE)
    return _plain(rest) or ip is not None


def _mailgun(told: Told) -> bool:
    tags, code, error = told
    if code or error or (tags is None and not (code is None and error is None)):
        raise Rejected(_BOUNCE)
    return False


_sparkpost_source = _by_word("source", {
    "spam complaint": True, "list unsubscribe": False, "unsubscribe link": False, "manually added": False,
    "compliance": False, "bounce rule": _BOUNCE, "": False,
})  # fmt: skip


def _sparkpost(told: Told) -> bool:
    kind, source = told
    complaint = _sparkpost_source([source])
    if kind == "transactional" and not complaint:
        raise Rejected("type transactional: it stops receipts, not news")
    return complaint


def _mailchimp(told: Told) -> bool:
    if not any(told[:3]):
        raise Rejected(_BOUNCE if any(told[3:]) else _SUBSCRIBED)
    return False


def _plain(told: Told) -> bool:
    """Say no where a column with a usual name says so; believe nothing else."""
    words = {_key(word or "") for word in told}
    if any("bounce" in word for word in words):
        raise Rejected(_BOUNCE)
    if words & {"enabled", "active", "subscribed", "confirmed", "unconfirmed", "pending"}:
        raise Rejected(_SUBSCRIBED)
    return bool(words & {"complaint", "spam", "spamcomplaint", "spamreport"})


def _needs(*columns: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in columns)


_EMAIL, _EMAIL_ADDRESS = ("email",), ("emailaddress",)
_OWN: Mapping[str, bool | str] = {"complaint": True, "unsubscribe": False, "": False}
_POSTMARK: Mapping[str, bool | str] = {"spamcomplaint": True, "manualsuppression": False, "hardbounce": _BOUNCE}
_SES: Mapping[str, bool | str] = {"complaint": True, "bounce": _BOUNCE, "true": False, "false": _SUBSCRIBED}
_MAILCHIMP = ("unsubtime", "unsubreason", "unsubcampaigntitle", "cleantime", "cleancampaigntitle")
_PLAIN = ("email", "emailaddress", "recipient", "mail", "mailaddress", "address", "subscriber")

# The most specific first: `detect` takes the first that fits.
FORMATS: Mapping[str, ExportFormat] = {each.name: each for each in (
    ExportFormat("unsubd", "unsubd's own export", _EMAIL, _needs("email", "group", "created", "source"), ("created",),
                 ("reason",), _by_word("reason", _OWN), group="group"),
    ExportFormat("listmonk", "listmonk subscribers", _EMAIL, _needs("email", "uuid", "status subscriptionstatus"),
                 ("updatedat",), ("status", "subscriptionstatus"), _listmonk),
    ExportFormat("postmark", "Postmark suppression dump", _EMAIL_ADDRESS, _needs("emailaddress", "suppressionreason"),
                 ("createdat",), ("suppressionreason",), _by_word("SuppressionReason", _POSTMARK)),
    ExportFormat("mailchimp", "Mailchimp audience", _EMAIL_ADDRESS,
                 _needs("emailaddress", " ".join([*_MAILCHIMP, "leid", "memberrating"])), ("unsubtime", "lastchanged"),
                 _MAILCHIMP, _mailchimp),
    ExportFormat("ses", "Amazon SES suppression or contact list", _EMAIL_ADDRESS,
                 _needs("emailaddress", "reason unsubscribeall"), ("lastupdatetime", "lastupdatedtimestamp"),
                 ("reason", "unsubscribeall"), _by_word("Reason or UnsubscribeAll", _SES)),
    ExportFormat("sparkpost", "SparkPost suppression list", ("recipient",), _needs("recipient", "type source"),
                 ("created", "updated"), ("type", "source"), _sparkpost),
    ExportFormat("mailgun", "Mailgun suppressions", ("address",), _needs("address", "tags createdat code error"),
                 ("createdat",), ("tags", "code", "error"), _mailgun),
    ExportFormat("sendgrid", "SendGrid suppressions", _EMAIL, _needs("email", "created groupid"),
                 ("created", "createdat"), ("reason", "ip", "status", "type"), _sendgrid),
    ExportFormat("plain", "a column of addresses", _PLAIN, _needs(" ".join(_PLAIN)), ("unsubscribedat",),
                 ("reason", "status", "type"), _plain),
)}  # fmt: skip


def _key(column: str) -> str:
    return "".join(filter(str.isalnum, column.casefold()))


def _fits(wanted: ExportFormat, keys: Sequence[str]) -> bool:
    alone = wanted.name == "plain" and len(keys) == 1 and keys[0] != ""
    return alone or all(not need.isdisjoint(keys) for need in wanted.needs)


def _found(columns: Sequence[str]) -> str:
    names = ["(an address)" if "@" in column else repr(column.strip("\ufeff ")[:40]) for column in columns]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if names[12:] else "")


def has_header(columns: Sequence[str]) -> bool:
    """Say whether a file's first line names columns: an address in it makes it the first row instead."""
    return not any("@" in column for column in columns)


def detect(columns: Sequence[str]) -> ExportFormat:
    """Return the format that the header *columns* belong to: any case, any order, more columns do not matter.

    Errors:  Rejected  nothing fits.    permanent
    Example:
        >>> detect(["\\ufeffEmail", "Created"]).name, detect(["recipient", "type", "source"]).name, detect(["who"]).name
        ('sendgrid', 'sparkpost', 'plain')
    """
    keys = [_key(column) for column in columns]
    for each in FORMATS.values():
        if _fits(each, keys):
            return each
    raise Rejected(f"columns {_found(columns) or 'none'}: expected a header with a column of addresses, e.g. email")


def reader(wanted: ExportFormat, columns: Sequence[str]) -> Callable[[Sequence[str]], ExportRow]:
    """Return what reads a row of *columns*: its cells in their order, the last ones may be missing.

    Shape:   columns: the header of a CSV file, the names in the first object of JSON lines: that a column is there at
             all tells SendGrid's lists apart.
    Errors:  Rejected  columns that the format needs are missing. Of the returned function: a row that is nobody's
                       request, or has no address, or an unreadable date or group; the reason quotes no cell.    permanent
    Why:     the columns are found once, so that a row costs microseconds.
    Example:
        >>> reader(FORMATS["plain"], ["name", "Email"])(["Jane", "Jane@Example.com"])
        ExportRow(recipient='jane@example.com', at_ms=None, complaint=False, group=None)
    """
    keys = [_key(column) for column in columns]
    if not _fits(wanted, keys):
        expected = ", ".join(" or ".join(sorted(need)) for need in wanted.needs)
        raise Rejected(f"columns {_found(columns) or 'none'}: format {wanted.name} expects {expected}")
    at = dict(zip(reversed(keys), count(len(keys) - 1, -1), strict=False))  # of two columns of one name, the first
    address = next((at[name] for name in wanted.address if name in at), 0)
    tells = [at.get(name) for name in wanted.tells]
    dates = [(_found([columns[at[name]]]), at[name]) for name in wanted.dates if name in at]
    group = at.get(wanted.group)

    def read(fields: Sequence[str]) -> ExportRow:
        cells = fields if len(fields) >= len(keys) else [*fields, *[""] * (len(keys) - len(fields))]
        complaint = wanted.complaint([None if index is None else cells[index].strip().lower() for index in tells])
        at_ms = next((read_ms(text, name) for name, index in dates if (text := cells[index].strip())), None)
        found_group = None if group is None else _read_group(cells[group].strip())
        return ExportRow(one_address(cells[address]), at_ms, complaint, found_group)

    return read


def _read_group(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_GROUP):
        raise Rejected(f"group of {len(text)} characters: expected 0 to {MAX_GROUP}")
    return int(text)
