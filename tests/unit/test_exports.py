"""Other systems' suppression exports: made-up rows in the shape that each system writes them."""

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import Rejected
from handlers.exports import FORMATS, ExportRow, detect, has_header, reader

JANE = "jane@example.com"
NOON_MS = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 1000  # what most rows below say, in their own way
HEADERS = {
    "unsubd": "email,group,created,source",
    "listmonk": "uuid,email,name,attributes,status,created_at,updated_at",
    "postmark": "EmailAddress,SuppressionReason,Origin,CreatedAt",
    "mailchimp": "Email Address,First Name,UNSUB_TIME,UNSUB_CAMPAIGN_TITLE,UNSUB_REASON,LEID,EUID",
    "ses": "EmailAddress,Reason,LastUpdateTime",
    "sparkpost": "recipient,type,source,description,created,updated",
    "mailgun": "address,tags,created_at",
    "sendgrid": "email,created",
    "plain": "e-mail",
}


def rows(text: str) -> list[ExportRow | str]:
    """Return what a CSV file's rows say; a str is the reason why one was rejected."""
    header, *lines = csv.reader(io.StringIO(text))
    read = reader(detect(header), header)
    return [_said(read, line) for line in lines]


def _said(read, line):
    try:
        return read(line)
    except Rejected as error:
        return str(error)


def row(name: str, **cells: str) -> ExportRow:
    """Return what a row of the format *name* with these cells says."""
    return reader(FORMATS[name], list(cells))(list(cells.values()))


def test_unsubds_own_export_keeps_the_group():
    said = rows("""email,group,created,source
Jane@Example.com,12,2026-01-31T12:00:00Z,imap:INBOX
john@example.org,0,2026-01-31T12:00:00.250Z,webhook:postmark
ann@example.org,news,2026-01-31T12:00:00Z,import
""")

    assert said == [
        ExportRow(JANE, NOON_MS, group=12),
        ExportRow("john@example.org", NOON_MS + 250, group=0),
        "group of 4 characters: expected 0 to 4294967295",
    ]


def test_plain_addresses_have_no_date():
    assert rows("email\njane@example.com\n") == [ExportRow(JANE, None)]


def test_plain_addresses_with_a_date_and_words():
    said = rows("""Name,E-Mail,Status,Unsubscribed at
Jane,jane@example.com,unsubscribed,2026-01-31 12:00:00
John,john@example.org,spam complaint,
Ann,ann@example.org,hard_bounce,
Bob,bob@example.org,Active,
""")

    assert said == [
        ExportRow(JANE, NOON_MS),
        ExportRow("john@example.org", None, complaint=True),
        "a bounce: nobody asked",
        "still subscribed: nobody asked",
    ]


def test_sendgrid_unsubscribes():
    assert rows("email,created\njane@example.com,1769860800\n") == [ExportRow(JANE, NOON_MS)]


def test_sendgrid_group_unsubscribes_leave_the_group_to_whoever_imports():
    said = rows("email,group_id,group_name,created_at\njane@example.com,3893,News,1769860800\n")

    assert said == [ExportRow(JANE, NOON_MS)]


def test_sendgrid_spam_reports_are_complaints():
    said = rows("ip,email,created\n192.0.2.7,jane@example.com,1769860800\n")

    assert said == [ExportRow(JANE, NOON_MS, complaint=True)]


def test_sendgrid_bounces():
    said = rows("status,reason,email,created\n5.1.1,550 no such user,jane@example.com,1769860800\n")

    assert said == ["a bounce: nobody asked"]


def test_mailgun_unsubscribes_and_complaints():
    said = rows('address,tags,created_at\njane@example.com,*,"Sat, 31 Jan 2026 12:00:00 UTC"\n')
    said += rows('address,created_at\njane@example.com,"Sat, 31 Jan 2026 13:00:00 +0100"\n')

    assert said == [ExportRow(JANE, NOON_MS)] * 2


def test_mailgun_bounces():
    said = rows("address,code,error,created_at\njane@example.com,550,no such user,\njohn@example.org,,,\n")

    assert said == ["a bounce: nobody asked"] * 2


def test_postmark_suppressions():
    said = rows("""EmailAddress,SuppressionReason,Origin,CreatedAt
jane@example.com,ManualSuppression,Recipient,2026-01-31T07:00:00-05:00
john@example.org,SpamComplaint,Recipient,2026-01-31T07:00:00-05:00
ann@example.org,HardBounce,Recipient,2026-01-31T07:00:00-05:00
bob@example.org,Whim,Admin,2026-01-31T07:00:00-05:00
""")

    assert said == [
        ExportRow(JANE, NOON_MS),
        ExportRow("john@example.org", NOON_MS, complaint=True),
        "a bounce: nobody asked",
        "SuppressionReason of 4 characters: expected spamcomplaint, manualsuppression, hardbounce",
    ]


def test_ses_account_suppressions():
    said = rows("""EmailAddress,Reason,LastUpdateTime
jane@example.com,COMPLAINT,1769860800.125
john@example.org,BOUNCE,2026-01-31T12:00:00.125000+00:00
ann@example.org,,
""")

    assert said == [
        ExportRow(JANE, NOON_MS + 125, complaint=True),
        "a bounce: nobody asked",
        "Reason or UnsubscribeAll of 0 characters: expected complaint, bounce, true, false",
    ]


def test_ses_contacts():
    columns = ["EmailAddress", "UnsubscribeAll", "LastUpdatedTimestamp"]
    read = reader(detect(columns), columns)

    assert read([JANE, "True", "1769860800"]) == ExportRow(JANE, NOON_MS)
    assert _said(read, [JANE, "False", "1769860800"]) == "still subscribed: nobody asked"


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("non_transactional", "List Unsubscribe", False),
        ("non_transactional", "Unsubscribe Link", False),
        ("non_transactional", "Manually Added", False),
        ("non_transactional", "Compliance", False),
        ("non_transactional", "", False),
        ("non_transactional", "Spam Complaint", True),
        ("transactional", "Spam Complaint", True),
        ("transactional", "Manually Added", "type transactional: it stops receipts, not news"),
        ("non_transactional", "Bounce Rule", "a bounce: nobody asked"),
        ("transactional", "Bounce Rule", "a bounce: nobody asked"),
    ],
)
def test_sparkpost_suppressions(kind, source, expected):
    [said] = rows(f"""recipient,type,source,description,created,updated
jane@example.com,{kind},{source},"a reason, in words",2026-01-31T12:00:00+00:00,2026-02-01T00:00:00+00:00
""")

    assert said == (expected if isinstance(expected, str) else ExportRow(JANE, NOON_MS, expected))


def test_sparkposts_unknown_source_is_described_not_quoted():
    with pytest.raises(Rejected, match=r"^source of 16 characters: expected spam complaint, .*, bounce rule$"):
        row("sparkpost", recipient=JANE, type="non_transactional", source="john@example.org")


def test_mailchimp_audience():
    said = rows("""Email Address,First Name,MEMBER_RATING,UNSUB_TIME,UNSUB_CAMPAIGN_TITLE,UNSUB_REASON,CLEAN_TIME,LAST_CHANGED
jane@example.com,Jane,2,2026-01-31 12:00:00,January,None given,,2026-02-01 08:00:00
john@example.org,John,2,,,N/A (Unsubscribed by admin),,2026-01-31 12:00:00
ann@example.org,Ann,1,,,,2026-01-31 12:00:00,2026-01-31 12:00:00
bob@example.org,Bob,5,,,,,2026-01-31 12:00:00
""")

    assert said == [
        ExportRow(JANE, NOON_MS),
        ExportRow("john@example.org", NOON_MS),
        "a bounce: nobody asked",
        "still subscribed: nobody asked",
    ]


def test_mailchimp_contact_who_left_and_bounced_later_did_ask():
    said = row("mailchimp", Email_Address=JANE, UNSUB_TIME="2026-01-31 12:00:00", CLEAN_TIME="2026-03-01 00:00:00")

    assert said == ExportRow(JANE, NOON_MS)


def test_listmonk_subscribers():
    said = rows("""uuid,email,name,attributes,status,created_at,updated_at
11,jane@example.com,Jane,"{""city"": ""Bonn""}",blocklisted,2024-05-01 08:00:00 +0000 UTC,2026-01-31 12:00:00.1234 +0000 UTC
12,john@example.org,John,{},enabled,2024-05-01 08:00:00 +0000 UTC,2026-01-31 12:00:00 +0000 UTC
13,ann@example.org,Ann,{},disabled,2024-05-01 08:00:00 +0000 UTC,2026-01-31 12:00:00 +0000 UTC
""")

    assert said == [
        ExportRow(JANE, NOON_MS + 123),
        "still subscribed: nobody asked",
        "status: expected blocklisted or unsubscribed",
    ]


@pytest.mark.parametrize("status", ["blocklisted", "enabled"])
def test_listmonk_subscriber_who_left_a_list(status):
    assert row("listmonk", uuid="11", email=JANE, status=status, subscription_status="unsubscribed").recipient == JANE


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "change",
    [
        lambda names: names,
        lambda names: [f"\ufeff{names[0]}", *names[1:]],
        lambda names: [f" {name.upper()} " for name in names],
        lambda names: [name.lower() for name in names],
        lambda names: [*reversed(names), "Favourite colour"],
    ],
    ids=["as is", "BOM", "upper case and spaces", "lower case", "reordered, one more"],
)
def test_header_tells_the_format(name, change):
    assert detect(change(HEADERS[name].split(","))).name == name


def test_every_format_is_in_these_tests():
    assert list(HEADERS) == list(FORMATS)


@pytest.mark.parametrize("column", ["email", "E-Mail", "Email address", "recipient", "address", "whatever"])
def test_single_column_is_plain(column):
    assert detect([column]).name == "plain"


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ([], "none"),
        ([""], "''"),
        (["name", "phone"], "'name', 'phone'"),
        (["john@example.org", "2026-01-31"], "(an address), '2026-01-31'"),
        ([f"c{number}" for number in range(14)], "'c11' and 2 more"),
    ],
)
def test_header_that_fits_nothing_is_named_without_addresses(columns, found):
    with pytest.raises(Rejected) as caught:
        detect(columns)

    assert f"{found}: expected a header with a column of addresses, e.g. email" in str(caught.value)
    assert "john" not in str(caught.value)


def test_file_without_a_header():
    assert not has_header([JANE])
    assert has_header(["email", "created"])


def test_format_that_the_columns_do_not_fit():
    with pytest.raises(Rejected, match=r"^columns 'email': format ses expects emailaddress, reason or unsubscribeall$"):
        reader(FORMATS["ses"], ["email"])


def test_first_of_two_columns_of_one_name_counts():
    assert rows("email,E-Mail\njane@example.com,john@example.org\n") == [ExportRow(JANE, None)]


def test_short_and_long_lines():
    assert rows("created,email\n\n,jane@example.com,more\n") == [
        "address of 0 characters: expected local-part@domain",
        ExportRow(JANE, None),
    ]


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "jane",
        "jane@",
        "Jane <jane@example.com>",
        "jane@example.com,john@example.org",
        "jane doe@x.org",
        "mailto:jane@x.org",
    ],
)
def test_what_is_no_address_is_described_not_quoted(recipient):
    with pytest.raises(Rejected) as caught:
        row("plain", email=recipient)

    assert "jane" not in str(caught.value)


@pytest.mark.parametrize("recipient", ['"jane doe"@example.com', "jane@[192.0.2.1]", "o'jane+news@example.com"])
def test_unusual_address_is_an_address(recipient):
    assert row("plain", email=recipient).recipient == recipient


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z", "2026-01-31T12:00Z", "2026-01-31t12:00:00z",
        "2026-01-31T12:00:00", "2026-01-31 12:00:00", "2026-01-31T13:30:00+01:30", "2026-01-31T07:00:00-0500",
        "2026-01-31 12:00:00+00", "2026-01-31 12:00:00 UTC", "2026-01-31 13:00:00.000000001 +0100 CET",
        "2026-01-31 17:30:00 +0530 +0530", "Sat, 31 Jan 2026 12:00:00 GMT", "31 Jan 2026 12:00 +0000",
        "Sat,31 Jan 2026 07:00:00 -0500", "31 Jan 2026 12:00:00", "1769860800", "1769860800.0", "1769860800000",
        " 1769860800 ",
    ],
)  # fmt: skip
def test_dates_of_one_moment(text):
    assert row("sendgrid", email=JANE, created=text).at_ms == NOON_MS


def test_date_without_a_time_is_midnight():
    assert row("sendgrid", email=JANE, created="2026-01-31").at_ms == NOON_MS - 12 * 3_600_000


@pytest.mark.parametrize("text", ["", "  "])
def test_no_date_is_none(text):
    assert row("sendgrid", email=JANE, created=text).at_ms is None


def test_second_date_stands_in_for_the_first():
    assert row("sparkpost", recipient=JANE, type="", created="", updated="1769860800").at_ms == NOON_MS


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "31/01/2026", "01/31/2026 12:00", "2026-02-30", "2026-01-31 25:00:00", "2026-01-31 12:00:00 CET",
        "Sat, 31 Jan 2026 12:00:00 EST", "31 Jänner 2026", "31 Foo 2026 12:00:00", "31 Jan 26 12:00:00", "-1769860800",
        "١٧٦٩٨٦٠٨٠٠", "1769860800.x", "1" * 31, "2026-W05-6", "john@example.org",
    ],
)  # fmt: skip
def test_unreadable_date_is_rejected_by_column_and_length(text):
    with pytest.raises(Rejected) as caught:
        row("mailgun", address=JANE, tags="*", Created_At=text)

    assert str(caught.value).startswith(f"'Created_At' of {len(text)} characters: expected a date, e.g. 2026")


@pytest.mark.parametrize(
    "text",
    [
        "1999-12-31T23:59:59Z", "2000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+23:59",
        "946684799", "0", "20260131", "1769860800000000", "253402300800000",
    ],
)  # fmt: skip
def test_absurd_date_is_rejected(text):
    with pytest.raises(Rejected, match=f"^'created' of {len(text)} characters: expected a date from 2000 to 9999$"):
        row("sendgrid", email=JANE, created=text)


@pytest.mark.parametrize("group", ["", "-1", "1.0", "٣", "4294967296", "9" * 5000])
def test_group_out_of_range_is_rejected(group):
    with pytest.raises(Rejected, match=rf"^group of {len(group)} characters"):
        row("unsubd", email=JANE, group=group, created="", source="import")


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.sampled_from([JANE, "BOUNCE", "Spam Complaint", "true", "unsubscribed", "1769860800", "12"]),
    st.datetimes().map(str), st.integers().map(str), st.floats().map(str),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}( ?[+-][0-9]{4})?", fullmatch=True),
    st.from_regex(r"[0-9]{1,2} (Jan|feb|Xyz) [0-9]{4} [0-9]{2}:[0-9]{2} [+-][0-9]{4}", fullmatch=True),
)  # fmt: skip


@given(st.sampled_from(sorted(HEADERS)), st.lists(CELLS, max_size=9))
def test_any_row_is_read_or_rejected(name, cells):
    read = reader(FORMATS[name], HEADERS[name].split(","))

    assert isinstance(_said(read, cells), ExportRow | str)


@given(CELLS)
def test_any_date_is_read_or_rejected_and_never_quoted(text):
    columns = HEADERS["sendgrid"].split(",")
    said = _said(reader(FORMATS["sendgrid"], columns), [JANE, text])

    assert isinstance(said, ExportRow) or (said.startswith("'created' of ") and said.endswith(("1769860800", "9999")))


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=20), max_size=5))
def test_any_header_is_detected_or_rejected(columns):
    try:
        found = detect(columns)
    except Rejected:
        return

    reader(found, columns)
