"""Lists that people keep: whatever a spreadsheet or a shell makes of them is read, and written again as it was."""

import io
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import Rejected
from worker.lists import ListFile, open_list, written_list

JANE = "jane@example.com"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list"


def read(path: Path, content: bytes) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a list."""
    path.write_bytes(content)
    with open_list(path) as found:
        return found.columns, [list(row) for row in found.rows()]


def rewritten(path: Path, content: bytes) -> bytes:
    """A list after all its rows went to another."""
    path.write_bytes(content)
    target = path.with_name("target")
    with open_list(path) as found, written_list(target, found) as keep:
        for row in found.rows():
            keep(row)
    return target.read_bytes()


# --- what is read


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_usual_delimiter_is_seen(path: Path, delimiter: str) -> None:
    content = "Name,Email,City\nJane,jane@example.com,Oslo\n".replace(",", delimiter).encode()

    assert read(path, content) == (["Name", "Email", "City"], [["Jane", JANE, "Oslo"]])


@pytest.mark.parametrize(
    ("content", "columns", "rows"),
    [
        (b"jane@example.com\njo@example.com\n", [], [[JANE], ["jo@example.com"]]),
        (b"jane@example.com", [], [[JANE]]),
        (b"Jane;jane@example.com\nJo;jo@example.com\n", [], [["Jane", JANE], ["Jo", "jo@example.com"]]),
        (b"\xef\xbb\xbfemail,name\r\njane@example.com,J\r\n", ["email", "name"], [[JANE, "J"]]),
        (b"\xef\xbb\xbfjane@example.com\r\n", [], [[JANE]]),
        (b'email,note\njane@example.com,"two\nlines, a comma and ""quotes"""\n', ["email", "note"],
         [[JANE, 'two\nlines, a comma and "quotes"']]),
        (b"email,name\rjane@example.com,J\r", ["email", "name"], [[JANE, "J"]]),
        (b"\n\r\n\nemail,name\n\n\njane@example.com,J\n\n", ["email", "name"], [[JANE, "J"]]),
        (b"\n\njane@example.com\n\n", [], [[JANE]]),
        (b"email,name\njane@example.com\n,J,more\n", ["email", "name"], [[JANE], ["", "J", "more"]]),
        (b"email\n", ["email"], []),
        (b"", [], []),
        (b"\n\n", [], []),
    ],
    ids=["one a line", "no last line end", "no header", "BOM and CRLF", "BOM, one a line", "quoted newline", "old Mac",
         "blank lines", "blank lines, no header", "ragged", "header alone", "empty", "blank"],
)  # fmt: skip
def test_what_spreadsheets_and_shells_write_is_read(
    path: Path, content: bytes, columns: list[str], rows: list[list[str]]
) -> None:
    assert read(path, content) == (columns, rows)


def test_json_lines_have_the_columns_of_their_first_object(path: Path) -> None:
    lines = [{"email": JANE, "n": 3, "name": None, "ok": True, "more": {"a": [1]}}, {"name": "Jo", "other": 1}]
    content = "\n\n".join(map(json.dumps, lines)).encode()

    assert read(path, content) == (
        ["email", "n", "name", "ok", "more"], [[JANE, "3", "", "true", '{"a": [1]}'], ["", "", "Jo", "", ""]],
    )  # fmt: skip


NO_OBJECTS = ["nothing", "[1]", '"text"', "{", '{"a":' + "[" * 100_000, '{"a": ' + "1" * 5000 + "}"]


@pytest.mark.parametrize("line", [each for each in NO_OBJECTS if each.startswith("{")])
def test_a_first_line_that_is_no_object_is_named(path: Path, line: str) -> None:
    with pytest.raises(Rejected, match=r"^line 1: expected one JSON object a line$"):
        read(path, line.encode())


@pytest.mark.parametrize("line", NO_OBJECTS)
def test_a_later_line_that_is_no_object_is_a_row_without_an_address(path: Path, line: str) -> None:
    _, rows = read(
        path, f'\n{{"email": "jane@example.com", "name": "J"}}\n{line}\n{{"email": "joe@example.com"}}\n'.encode()
    )

    assert rows == [["jane@example.com", "J"], [line, ""], ["joe@example.com", ""]]


def test_a_json_line_may_be_long_and_hold_what_text_splits_lines_at(path: Path) -> None:
    content = json.dumps({"name": "a\u2028b\x85c", "note": "x" * 20_000, "email": JANE}, ensure_ascii=False)

    columns, rows = read(path, content.encode())

    assert (columns, rows[0][0], rows[0][2]) == (["name", "note", "email"], "a\u2028b\x85c", JANE)


def test_half_a_character_of_json_is_spelled(path: Path) -> None:
    _, [[_, name]] = read(path, b'{"email": "jane@example.com", "name": "a\\ud800b"}')

    assert name == "a\\ud800b"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('email,name\na@x.de,A\n"b@x.de,B\nc@x.de,C\nd@x.de,D\n', 3),  # never closed
        ('name;email\n"A;a@x.de\nB;b@x.de\n"C;c@x.de\nD;d@x.de\n', 2),  # closed by the next stray one
        ('email\na@x.de\n"b@x.de\nc@x.de\n', 3),
    ],
)
def test_a_stray_quote_swallows_nobody(path: Path, content: str, line: int) -> None:
    path.write_text(content)

    with open_list(path) as found, pytest.raises(Rejected, match=rf"line {line}: a quote opens .* mend the quote"):
        list(found.rows())


def test_a_cell_of_several_lines_is_a_cell(path: Path) -> None:
    path.write_text('email,note\na@x.de,"call me\nat home, or write to b@x.de"\nc@x.de,"two\n\nlines"\n')

    with open_list(path) as found:
        assert [row[0] for row in found.rows()] == ["a@x.de", "c@x.de"]


def test_a_field_of_a_megabyte_is_refused_with_its_line(path: Path) -> None:
    with pytest.raises(Rejected, match=r"^line 2: field larger than field limit"):
        read(path, b"email,note\njane@example.com," + b"x" * (1 << 20) + b"x\n")


# --- what is no list


@pytest.mark.parametrize(
    "content", ["email\njane@example.com\n".encode("utf-16"), b"\x7fELF\0\0@\r\0\r", bytes(range(256))]
)
def test_what_is_no_text_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(Rejected, match="expected text in UTF-8"):
        read(path, content)


@settings(deadline=None)  # the disk may be busy
@given(content=st.binary(max_size=200) | st.text('a@,;"\r\n{}[]:0\ufeff\u2028é').map(str.encode))
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    try:
        read(path, content)
    except Rejected as error:
        assert str(error)  # noqa: PT017


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(Rejected, match=f"{reason}, expected a file that we may read"), open_list(path):
            pass


def test_trouble_of_whoever_reads_a_list_is_not_the_lists(path: Path) -> None:
    path.write_bytes(b"email\n")

    with pytest.raises(BrokenPipeError), open_list(path):
        raise BrokenPipeError(32, "Broken pipe")


# --- what can be read once


def piped(path: Path, *pieces: bytes) -> None:
    """Let a pipe at *path* bring a list, each piece by itself."""
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)

    threading.Thread(target=write).start()


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_a_pipe_is_read_in_whatever_pieces_it_comes(path: Path, cut: int) -> None:
    content = b"name;E-Mail-Adresse\nJane;jane@example.com\n" + b"Jo;jo@example.com\n" * 9999
    piped(path, content[:cut], content[cut:])

    with open_list(path) as found:
        assert (found.size_bytes, found.address_column()) == (None, 1)
        rows = list(found.rows())
        assert found.read_bytes() == 0

    assert (len(rows), rows[0], rows[-1]) == (10_000, ["Jane", JANE], ["Jo", "jo@example.com"])


def test_standard_input_is_a_list_and_stays_open(path: Path) -> None:
    path.write_bytes(b"email\njane@example.com\n")
    kept = os.dup(0)
    with path.open("rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        with open_list(Path("-")) as found:
            assert (found.size_bytes, list(found.rows())) == (None, [[JANE]])
        assert os.read(0, 1) == b""
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_progress_is_told_in_octets(path: Path) -> None:
    path.write_bytes(content := b"email\n" + b"jane@example.com\n" * 10)
    with open_list(path) as found:
        assert (found.size_bytes, found.read_bytes()) == (len(content), 0)
        list(found.rows())
        assert found.read_bytes() == len(content)


# --- the column of addresses


@pytest.mark.parametrize(
    ("header", "row", "name", "number"),
    [
        ("id,Email", "1,x", "", 1),
        ("id,E-Mail ", "1,x", "", 1),
        ("address,email", "Main Street,jane@example.com", "", 1),
        ("Kunde,Kontakt", "Jane,jane@example.com", "", 1),
        ("email,email", "a@example.com,b@example.com", "", 0),
        ("email,Contact", "a@example.com,b@example.com", " contact ", 1),
        ("email,second,second", "a@example.com,b@example.com,c@example.com", "second", 1),
    ],
)
def test_the_column_of_addresses(path: Path, header: str, row: str, name: str, number: int) -> None:
    path.write_text(f"{header}\n{row}\n")

    with open_list(path) as found:
        assert found.address_column(name) == number


def test_without_a_header_the_first_cell_that_looks_like_one_decides(path: Path) -> None:
    path.write_text("17,jane@example.com,x@y\n")

    with open_list(path) as found:
        assert found.address_column() == 1
        with pytest.raises(Rejected, match="expected one of none: no header line"):
            found.address_column("email")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("id,name\n1,Jane\n", "", "no column of addresses found"),
        ("", "", "no column of addresses found"),
        ("id,email\n", "mail", "--column 'mail': expected one of id, email"),
    ],
)
def test_no_column_of_addresses_is_refused(path: Path, content: str, name: str, message: str) -> None:
    path.write_text(content)

    with open_list(path) as found, pytest.raises(Rejected, match=message):
        found.address_column(name)


# --- what is written


@pytest.mark.parametrize(
    "content",
    [
        b"email,name\njane@example.com,Jane\n",
        b"email;name\r\njane@example.com;Jane\r\n",
        b"email\tname\njane@example.com\tJane\n",
        b"jane@example.com\njo@example.com\n",
        b"email,name\njane@example.com,J\xfcrgen\nb@example.com,J\xc3\xbcrgen\n",
        b'email,note\njane@example.com,"two\nlines, and ""quotes"""\n',
        b"email,email,email\na@example.com,b@example.com,c@example.com\n",
        b"email,name\njane@example.com\n,J,more\n",
        b"email,name\n",
        b'{"email": "jane@example.com", "n": 3, "t": "3", "x": null, "ok": true, "more": {"a": [1.50]}}\n{"email": "b"}\n',
        '{"email":"jane@example.com","name":"J\u2028ü \\u00fc \\ud800"}\n{"other":1,"email":"b"}\n'.encode(),
        b'{"email": "jane@example.com", "name": "J\xfcrgen"}\r\n{"n": "\xe9"}\r\n',
    ],
)  # fmt: skip
def test_a_list_comes_back_byte_for_byte(path: Path, content: bytes) -> None:
    assert rewritten(path, content) == content


_CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(deadline=None)
@given(rows=st.lists(st.lists(_CELL, min_size=2, max_size=3), max_size=5), delimiter=st.sampled_from(",;\t|"))
def test_what_is_written_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "round"
    like = ListFile(io.BytesIO(), ["email", "name"], delimiter, False, "\n", None)
    with written_list(path, like) as keep:
        for row in rows:
            keep(row)

    with open_list(path) as found:
        assert (found.columns, list(found.rows())) == (["email", "name"], rows)


@pytest.mark.parametrize("before", [None, b"as it was"])
@pytest.mark.parametrize("fail", [KeyboardInterrupt(), Rejected("x"), BrokenPipeError(32, "Broken pipe")])
def test_the_file_appears_only_complete(path: Path, fail: BaseException, before: bytes | None) -> None:
    path.write_bytes(b"email\njane@example.com\n")
    target = path.with_name("target")
    if before:
        target.write_bytes(before)
    seen = []

    def write_and_fail() -> None:
        with open_list(path) as found, written_list(target, found) as keep:
            for row in found.rows():
                keep(row)
            seen.append(target.read_bytes() if target.exists() else None)
            raise fail

    with pytest.raises(type(fail)):
        write_and_fail()

    assert [*seen, target.read_bytes() if target.exists() else None] == [before, before]
    assert {each.name for each in path.parent.iterdir()} == {"list", *(["target"] if before else [])}


def test_a_list_may_take_its_own_place(path: Path) -> None:
    path.write_bytes(b"email\njane@example.com\njo@example.com\n")

    with open_list(path) as found, written_list(path, found) as keep:
        keep(next(found.rows()))

    assert path.read_bytes() == b"email\njane@example.com\n"


def test_a_place_that_cannot_be_written_is_refused(path: Path) -> None:
    path.write_bytes(b"email\n")
    (path.parent / "folder").mkdir()

    for target in (path / "below", path.parent / "none" / "target", path.parent / "folder"):
        with (
            pytest.raises(Rejected, match="expected a file that we may write"),
            open_list(path) as found,
            written_list(target, found),
        ):
            pass
    assert {each.name for each in path.parent.iterdir()} == {"list", "folder"}
