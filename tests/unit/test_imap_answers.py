"""What the server's bytes and lines say, in every way that they can be cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sources.imap import answers, reader
from worker.sources.imap.address import shown_name, wire_name
from worker.sources.imap.reader import Garbage, ResponseReader
from worker.sources.progress import UidSet

STREAM = (
    b"* OK [CAPABILITY IMAP4rev1] ready {5}\r\n"
    b'* 1 FETCH (UID 7 RFC822.SIZE 11 BODY[]<0> {11}\r\n* 2 FETCH\r\n) INTERNALDATE "01-Feb-2026 10:00:00 +0100")\r\n'
    b'* LIST (\\HasNoChildren \\Junk) "." {4}\r\nSp*m\r\n'
    b"* SEARCH 1 2 3\r\n"
    b'* 3 FETCH (UID 9 RFC822.SIZE 3 BODY[]<0> "a\\"b")\r\n'
    b"* 4 FETCH (UID 10 RFC822.SIZE 0 BODY[]<0> {0}\r\n)\r\n"
    b"a1 OK done {3}\r\n"
)


def _responses(*pieces: bytes) -> list[list[reader.Part]]:
    found = ResponseReader()
    return [parts for piece in pieces for parts in found.feed(piece)]


def test_responses_keep_literals_apart_from_text() -> None:
    responses = _responses(STREAM)

    assert [len(parts) for parts in responses] == [1, 3, 3, 1, 1, 3, 1]
    assert responses[1][1] == bytearray(b"* 2 FETCH\r\n")
    assert responses[6] == [b"a1 OK done {3}"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_it_does_not_matter_how_the_stream_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(places)]

    assert _responses(*pieces) == _responses(STREAM)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_give_responses_or_garbage(pieces: list[bytes]) -> None:
    try:
        responses = _responses(*pieces)
    except Garbage:
        return

    assert all(isinstance(part, bytes | bytearray) for parts in responses for part in parts)


@pytest.mark.parametrize("announced", [b"* 1 FETCH {4294967296}\r\n", b"* X {99999999999999999999}\r\n"])
def test_a_literal_beyond_the_bound_is_garbage(announced: bytes) -> None:
    with pytest.raises(Garbage, match="literal"):
        _responses(announced)


def test_a_line_without_end_is_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_LINE_OCTETS", 1000)

    with pytest.raises(Garbage, match="line"):
        _responses(*[b"x" * 100] * 11)


def _lines(*texts: bytes) -> list[object]:
    """As the protocol hands them to a command: text alone, or a tuple of text and literals."""
    return [
        parts[0][2:] if len(parts) == 1 else (parts[0][2:], *parts[1:])
        for parts in _responses(*[b"* " + text + b"\r\n" for text in texts])
    ]


def test_fetched_messages() -> None:
    lines = _lines(
        b'1 FETCH (UID 7 INTERNALDATE "01-Feb-2026 10:00:00 +0100" RFC822.SIZE 11 BODY[]<0> {11}\r\nUID 8 {2}\r\n)',
        b"2 FETCH (FLAGS (\\Seen) UID 8)",
        b'3 FETCH (BODY[]<0> "no uid")',
        b"12 EXISTS",
        b'4 FETCH (UID 9 RFC822.SIZE 3 BODY[]<0> "a\\"b" INTERNALDATE "nonsense")',
        b'5 FETCH (UID 10 RFC822.SIZE 0 BODY[]<0> "")',
        b'6 FETCH (UID 11 INTERNALDATE "01-Jan-1970 00:00:00 +0000" RFC822.SIZE 0 BODY[]<0> NIL)',
    )

    found = answers.fetched(lines)

    assert [(each.uid, each.raw, each.size_bytes, each.received_ms) for each in found] == [
        (7, b"UID 8 {2}\r\n", 11, 1769936400000),
        (9, b'a"b', 3, None),
        (10, b"", 0, None),
    ]


def test_folders_are_named_as_the_server_names_them() -> None:
    lines = _lines(
        b'(\\HasChildren) "." INBOX',
        b'(\\Junk) "." "INBOX.Sp&AOQ-m"',
        b'(\\Junk \\NoSelect) "." {5}\r\nOther',
        b"garbage",
    )
    known = tuple(folder for line in lines if (folder := answers.folder(line)))
    folders = answers.Folders(
        known, answers.personal_prefix([b'(("INBOX." ".")) NIL NIL']), answers.delimiter(lines[0])
    )

    assert [folder.name for folder in known] == ["INBOX", "INBOX.Späm", "Other"]
    assert folders.junk() == "INBOX.Späm"
    assert folders.named("Done/2026") == "INBOX.Done.2026"
    assert folders.named("INBOX/Done") == "INBOX.Done"
    assert folders.named("inbox") == "inbox"
    assert folders.named("Other") == "Other"


def test_a_flat_account_has_no_delimiter() -> None:
    assert answers.delimiter(b"() NIL INBOX") == ""
    assert answers.folder(b"() NIL INBOX") == answers.Folder("INBOX", frozenset())
    assert answers.personal_prefix([b"NIL NIL NIL"]) == ""


@pytest.mark.parametrize(
    ("lines", "keywords"),
    [
        ([b"OK [PERMANENTFLAGS (\\Deleted \\Seen \\*)] ok"], True),
        ([b"OK [PERMANENTFLAGS (\\Deleted \\Seen)] no"], False),
        ([b"OK [PERMANENTFLAGS ()] read-only"], False),
        ([b"OK [PERMANENTFLAGS (\\Seen $unsubddone)] known"], True),
        ([b"OK nothing said"], True),
    ],
)
def test_whether_keywords_may_be_stored(lines: list[bytes], keywords: bool) -> None:
    assert answers.selected(lines).keywords is keywords


def test_uids_found_ignores_what_is_no_number() -> None:
    assert answers.uids_found([b"3 1 2", b"", b"OK done 77", (b"5", bytearray(b"6"))]) == [1, 2, 3]


@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\n\0"), max_size=30))
def test_mailbox_names_survive_modified_utf7(name: str) -> None:
    assert wire_name(name).isascii()
    assert shown_name(wire_name(name).encode()) == name


def test_the_examples_of_the_rfc() -> None:
    assert wire_name("~peter/mail/台北/日本語") == "~peter/mail/&U,BTFw-/&ZeVnLIqe-"  # RFC 3501 5.1.3


@given(st.sets(st.integers(1, 2100)), st.sets(st.integers(1, 2100)))
def test_a_uid_set_is_a_set(first: set[int], second: set[int]) -> None:
    uids = UidSet()
    uids.add(first)
    uids.add(second)

    assert len(uids) == len(first | second)
    assert all((uid in uids) == (uid in first | second) for uid in range(2101))
