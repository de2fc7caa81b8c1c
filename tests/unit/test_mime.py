"""Bytes become header fields and parts, by rule and in linear time."""

import time

import pytest

from handlers import mime
from handlers.mime import MAX_DEPTH, MAX_PARTS, content_type, read_fields, split_header, transfer_decoded


def _parts(body, kind="multipart/mixed; boundary=b"):
    return [(part.content_type.name, part.depth, part.raw_body) for part in mime.parts((("content-type", kind),), body)]


# -- the header block


@pytest.mark.parametrize(
    ("raw", "block", "body"),
    [
        (b"A: 1\n\nx\n\ny", b"A: 1", b"x\n\ny"), (b"A: 1\r\n\r\nx", b"A: 1\r", b"x"), (b"\nx", b"", b"x"), (b"\r\nx", b"", b"x"),
        (b"A: 1\r\rx\r\ry", b"A: 1", b"x\r\ry"), (b"A: 1\r\r\nB: 2\r\r\n\r\r\nx", b"A: 1\r\r\nB: 2\r\r", b"x"),
        (b"A: 1\rB: 2\r\n\r\nx", b"A: 1\rB: 2", b"x"), (b"A: 1\n\r\nx", b"A: 1", b"x"),
    ],
)  # fmt: skip
def test_an_empty_line_ends_the_header(raw, block, body):
    assert split_header(raw) == (block, body, True)


@pytest.mark.parametrize("raw", [b"", b"A: 1", b"A: 1\n", b"A: 1\r\n", b"A: 1\r\nB\rC\r\n", b"A: 1\rB: 2\r"])
def test_without_an_empty_line_there_is_no_end(raw):
    assert split_header(raw) == (raw, b"", False)


@pytest.mark.parametrize(
    "junk",
    [
        "junk",
        "From jane Mon Jan 1 10:00:00",
        ">From jane",
        "\0",
        ": no name",
        "\x80: x",
        "junk\n folded",
        " folded junk",
        "a b: c",
    ],
)
def test_garbage_lines_take_nothing_along(junk):
    block = f"A: 1\n{junk}\nB: 2".encode("latin-1")

    assert [name for name, _ in read_fields(block)] == ["a", "b"]
    assert ("b", "2") in read_fields(f"{junk}\nB: 2".encode("latin-1"))


def test_fields_are_unfolded_whatever_ends_their_lines():
    expected = (("a", "1\ttwo"), ("b", "3"))

    for line_end in ("\n", "\r\n", "\r", "\r\r\n"):
        assert expected == read_fields(f"A:1{line_end}\ttwo{line_end}B : 3 ".encode())


# -- Content-Type


@pytest.mark.parametrize(
    ("value", "name", "parameters"),
    [
        ('Multipart/Mixed; Boundary="a b;c"', "multipart/mixed", {"boundary": "a b;c"}),
        ("text/plain;charset = utf-8 ; x=1", "text/plain", {"charset": "utf-8", "x": "1"}),
        ('a/b; name="; boundary=no"; boundary=yes', "a/b", {"name": "; boundary=no", "boundary": "yes"}),
        ("a/b; x=1; x=2", "a/b", {"x": "1"}), ('a/b; x="open', "a/b", {"x": '"open'}), ("a / b", "a/b", {}),
        ("", "text/plain", {}), ("nonsense", "text/plain", {}), ("; x=1", "text/plain", {}),
    ],
)  # fmt: skip
def test_a_content_type_has_a_name_and_parameters(value, name, parameters):
    found = content_type((("content-type", value),))

    assert (found.name, found.parameters) == (name, parameters)


# -- parts


def test_parts_come_in_order_with_their_depth():
    inner = b"--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\none\n--c\nContent-Type: text/html\n\ntwo\n--c--\n"
    body = b"preamble\n--b\n\nzero\n" + inner + b"\n--b\nContent-Type: a/b\n\nthree\n--b--\nepilogue\n--b\n\nno\n"

    assert _parts(body) == [
        ("text/plain", 1, b"zero"), ("multipart/alternative", 1, b""), ("text/plain", 2, b"one"), ("text/html", 2, b"two"),
        ("a/b", 1, b"three"),
    ]  # fmt: skip


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r", b"\r\r\n"])
def test_a_part_has_lf_line_ends(line_end):
    assert _parts(b"--b\n\none\ntwo\n--b--".replace(b"\n", line_end)) == [("text/plain", 1, b"one\ntwo")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []), (b"--c\n\nx\n--c--", []), (b"--b", [("text/plain", 1, b"")]), (b"x--b\n\ny", []), (b" --b\n\ny", []),
        (b"--b\nA: 1", [("text/plain", 1, b"")]), (b"--b--\n--b\n\nx", []), (b"--b \t\n\nx", [("text/plain", 1, b"x")]),
        (b"--b\nA: 1\n--b\n\nx", [("text/plain", 1, b""), ("text/plain", 1, b"x")]), (b"--bb\n\nx", []),
    ],
)  # fmt: skip
def test_only_an_open_boundary_delimits(body, expected):
    assert _parts(body) == expected


def test_an_outer_boundary_ends_what_is_open_inside():
    body = b"--b\nContent-Type: multipart/x; boundary=c\n\n--c\n\none\n--b\n\ntwo\n--c\n\nstill two\n--b--"

    assert [depth for _, depth, _ in _parts(body)] == [1, 2, 1]


def test_an_embedded_message_stays_closed():
    inner = b"Content-Type: multipart/mixed; boundary=c\n\n--c\nContent-Type: x/y\n\n--c--\n"
    body = b"--b\nContent-Type: message/rfc822\n\n" + inner + b"--b--"

    assert [name for name, _, _ in _parts(body)] == ["message/rfc822"]


@pytest.mark.parametrize("kind", ["text/plain; boundary=b", "multipart/mixed", 'multipart/mixed; boundary=""', ""])
def test_without_a_multipart_and_its_boundary_there_are_no_parts(kind):
    assert _parts(b"--b\n\nx\n--b--", kind) == []


def test_depth_and_number_of_parts_are_bounded():
    deep = b"".join(
        b"--b%s\nContent-Type: multipart/x; boundary=b%d\n\n" % (b"%d" % n if n else b"", n + 1) for n in range(99)
    )

    assert max(depth for _, depth, _ in _parts(deep)) == MAX_DEPTH
    assert len(_parts(b"--b\n\nx\n" * 2 * MAX_PARTS)) == MAX_PARTS - 1


@pytest.mark.parametrize("line", [b"--\n", b"--x\n", b"--b\n", b"--b\n\n", b"--b--\n", b"-", b"\n", b"--b\nA: 1\n"])
def test_a_quarter_of_a_megabyte_of_delimiters_takes_no_time(line):
    started = time.process_time()
    _parts(line * (262_144 // len(line)))

    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("raw", "encoding", "expected"),
    [
        (b"cGxl\nYXNl\n", "base64", b"please"), (b"cGxlYXN", "base64", b"pleas"), (b"cGxlY", "base64", b"ple"),
        (b"", "base64", b""),
        (b"=\xff=", "base64", b""), (b"a=3D=\nb", "quoted-printable", b"a=b"), (b"=ZZ=", "quoted-printable", b"=ZZ"),
        (b"x", "7bit", b"x"), (b"x", "", b"x"), (b"x", "x-uuencode", b"x"),
    ],
)  # fmt: skip
def test_a_transfer_encoding_is_undone_as_far_as_it_goes(raw, encoding, expected):
    assert expected == transfer_decoded(raw, encoding)
