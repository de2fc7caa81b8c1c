"""deploy/minting: each language mints what handlers/tag.py mints, or refuses with a clear word; never another tag."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers import tag as tags
from handlers.address import one_address
from handlers.errors import AddressError
from handlers.headers import unsubscribe_headers
from handlers.tag import AddressTemplate, Keyring, Tag
from tests.harness import processes
from tests.harness.service import MASTERS

FOLDER = Path(__file__).parents[2] / "deploy/minting"
KEYS = Keyring((bytes.fromhex(MASTERS[0]),))
URL = "https://unsub.example.com"
ADDRESSES = [
    "jane@example.com", "Jane.Doe@EXAMPLE.com", " jane@example.com. ", "john_smith@mail.example.org", "a@b.co", "x_@y.zz",
    "-x-@a-b.example", "jane+news@example.com", "o'brien@example.ie", "a..b@example.com", ".a@example.com", "a=b@x.example",
    "u&{}|~!#$%^*`/?@x.example", "user@[192.0.2.1]", "user@[IPv6:2001:db8::1]", "x@under_score.example", "x@-a.example",
    "user@xn--bcher-kva.example", '"a b"@x.example', '"a@b"@x.example', "postmaster@example.com..", "x@localhost", "$&@x.co",
    "somebody.with.a.rather.long.name@a-rather-long-domain.example.com", "a+somewhat.long.name@department.example.com",
]  # fmt: skip
UNICODE = [
    "josé@example.com", "jose\u0301@example.com", "ÉCOLE@example.com", "user@bücher.example", "user@BÜCHER.example",
    "李@例え.jp", "straße@straße.de", "İ@example.com", "ΑΣ@example.com", "x@☃.net", "\u212a@example.com", "x@GRO\u1e9e.de",
]  # fmt: skip
NO_ADDRESSES = [
    "", "@", "x", "x@", "@x.co", "a,b@x.co", "a b@x.co", "<a@x.co>", "a@b@x.co", "a@x..co", "a@x.co\r\nBcc: b@y.co", "a\n@x.co",
    "a\0@x.co", '"a"b"@x.co', "a@x y.co", "a@[x y]", "a@" + "x" * 64 + ".co", "a@x.co,b@y.co", "a\x7f@x.co", "a@-.x,y",
    '"a\n"@x.co', "a\x85b@x.co",
]  # fmt: skip
TEMPLATES = ["u+{tag}@unsub.example.com", "{tag}@u.example", "unsubscribe+{tag}@example.com"]
GROUPS = [0, 12, 4294967295]
TOO_LONG, OUTSIDE = "form h", "outside ASCII"

NODE = """
const { unsubscribeHeaders } = require(process.argv[1] + "/unsubd.js");
for (const words of JSON.parse(require("fs").readFileSync(0)))
  try { console.log(JSON.stringify(unsubscribeHeaders(...words))); } catch (e) {
    if (!(e instanceof RangeError)) throw e;
    console.log(JSON.stringify({ refused: e.message }));
  }
"""
PHP = """
require $argv[1] . '/unsubd.php';
foreach (json_decode(stream_get_contents(STDIN)) as $words)
  try { echo json_encode(unsubd_headers(...$words), JSON_UNESCAPED_SLASHES), "\\n"; }
  catch (InvalidArgumentException $e) { echo json_encode(['refused' => $e->getMessage()]), "\\n"; }
"""
RUBY = """
require "json"; require ARGV[0] + "/unsubd.rb"
JSON.parse(STDIN.read).each do |words|
  puts JSON.generate(Unsubd.headers(*words))
rescue Unsubd::Refused => e
  puts JSON.generate({ refused: e.message })
end
"""
GO = """
package main

import (
	"encoding/json"
	"os"
	"minting/unsubd"
)

func main() {
	var rows [][]any
	if err := json.NewDecoder(os.Stdin).Decode(&rows); err != nil { panic(err) }
	out := json.NewEncoder(os.Stdout)
	for _, w := range rows {
		group := uint32(w[2].(float64))
		found, err := unsubd.Headers(w[0].(string), w[1].(string), group, w[3].(string), w[4].(string), w[5].(string))
		if err != nil { found = map[string]string{"refused": err.Error()} }
		out.Encode(found)
	}
}
"""


def _go(folder: Path) -> list[str]:
    (folder / "unsubd").mkdir()
    (folder / "unsubd/unsubd.go").write_text((FOLDER / "unsubd.go").read_text())
    (folder / "main.go").write_text(GO)
    (folder / "go.mod").write_text("module minting\n\ngo 1.19\n")
    return ["go", "run", "."]


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "node": lambda _: ["node", "-e", NODE, str(FOLDER)],
    "php": lambda _: ["php", "-r", PHP, str(FOLDER)],
    "ruby": lambda _: ["ruby", "-e", RUBY, str(FOLDER)],
    "go": _go,
}


def asked() -> list[list[Any]]:
    key = KEYS.sender_keys("acme")[0].hex()
    people = [*ADDRESSES, *UNICODE, *NO_ADDRESSES]
    return [[key, "acme", group, who, form, URL] for form in TEMPLATES for group in GROUPS for who in people]


def expected(group: int, who: str, form: str) -> dict[str, str] | str:
    """What handlers/tag.py says: the headers, or the word for why there are none."""
    try:
        minted = tags.mint(KEYS, Tag("acme", group, one_address(who)), AddressTemplate.parse(form))
    except AddressError:
        return "not one bare address"
    return TOO_LONG if minted.stored else dict(unsubscribe_headers(minted, f"{URL}/u/{minted.tag}"))


@pytest.mark.parametrize("language", COMMANDS)
def test_a_language_mints_the_same_or_refuses(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.require(language, processes.PACKAGES[language])
    monkeypatch.setenv("GOCACHE", str(Path(tmp_path).parent / "go"))
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    rows = asked()
    done = subprocess.run(
        COMMANDS[language](tmp_path), input=json.dumps(rows).encode(), capture_output=True, cwd=tmp_path, timeout=110
    )
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(rows)

    wrong = []
    for (_, _, group, who, form, _), answer in zip(rows, answers, strict=True):
        right = expected(group, who, form)
        refusal = answer.get("refused", "")
        outside = OUTSIDE in refusal and not who.isascii() and language != "node"
        if not (answer == right or outside or (isinstance(right, str) and right in refusal)):
            wrong.append((who, form, answer, right))
    assert wrong == []


@pytest.mark.parametrize("language", COMMANDS)
def test_the_shared_vectors_are_minted(language: str, shared: Path, tmp_path: Path) -> None:
    processes.require(language, processes.PACKAGES[language])
    vectors = json.loads((shared / "tag-vectors.json").read_text())
    cases = [each for each in vectors["cases"] if each["master"] == 0]
    keys = vectors["sender_keys_hex"]
    rows = [[keys[c["sender"]], c["sender"], c["group"], c["recipient"], c["template"], URL] for c in cases]
    done = subprocess.run(
        COMMANDS[language](tmp_path), input=json.dumps(rows).encode(), capture_output=True, cwd=tmp_path, timeout=110
    )
    assert done.returncode == 0, done.stderr.decode()

    for case, answer in zip(cases, map(json.loads, done.stdout.splitlines()), strict=True):
        if case["stored"]:
            assert TOO_LONG in answer["refused"]
        elif OUTSIDE in answer.get("refused", "") and language != "node":
            assert not case["recipient"].isascii()
        else:
            assert answer["List-Unsubscribe"] == f"<mailto:{case['address']}>, <{URL}/u/{case['tag']}>"
