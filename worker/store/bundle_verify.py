"""Check a bundle of evidence, as `unsubd evidence --bundle` writes it. Needs Python 3.9 or newer, nothing else, no network.

    python3 verify.py                     check the files beside this script
    python3 verify.py BUNDLE.zip          check a bundle that was not unpacked
    python3 verify.py BUNDLE.zip HASH     look also for the end of the archive that was noted earlier

A record's digest is the sha256 of its JSON, a file's digest the hash after its last record. Both are chained in one way:
hash = sha256(hash before + digest), from 32 zero bytes: the records of each file, and the files. What is not archived yet is
chained onto the end of the last file. head = sha256(end of the chain + sha256(story.json)).
"""

import json
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

# ruff: noqa: T201  (it talks to a person, on a machine without unsubd)
ZERO = bytes(32)
Lines = Iterable[tuple[str, dict[str, Any]]]  # with the place of each


def fits(holds: bool, where: str) -> None:
    """Stop at the first place where something does not hold."""
    if not holds:
        raise ValueError(where)


def raw(text: str, where: str) -> bytes:
    """Return the bytes of a hash."""
    fits(bool(re.fullmatch("[0-9a-f]{64}", text)), where)
    return bytes.fromhex(text)


def canonical(value: Any) -> str:
    """Return the one text of a JSON value: a line that is written in another way could say two things."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def lines_of(name: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the value of each line of a file."""
    *lines, rest = data.decode("ascii", "replace").split("\n")
    for number, line in enumerate(lines, 1):
        where = f"{name} line {number}"
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        fits(isinstance(value, dict) and canonical(value) == line, where)
        yield where, value
    fits(not rest, f"{name} line {len(lines) + 1}")


def chain(before: bytes, lines: Lines) -> tuple[bytes, int, int]:
    """Return the hash after *lines*, how many of them are given in full, and how many by digest only."""
    full = hidden = 0
    for where, line in lines:
        if set(line) == {"digest"}:
            before = sha256(before + raw(line["digest"], where)).digest()
            hidden += 1
        else:
            fits(set(line) == {"content", "hash"}, where)
            before = sha256(before + sha256(canonical(line["content"]).encode()).digest()).digest()
            fits(line["hash"] == before.hex(), where)
            full += 1
    return before, full, hidden


def archived(lines: Lines) -> tuple[list[bytes], int, int]:
    """Return where each file ends, and how many records are given in full and by digest only."""
    files: list[tuple[str, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = []
    for where, line in lines:
        if "file" in line:
            files.append((where, line, []))
        else:
            fits(bool(files), where)
            files[-1][2].append((where, line))
    ends, full, hidden = [ZERO], 0, 0
    for number, (where, head, records) in enumerate(files, 1):
        digest, more, others = chain(ZERO, records)
        fits(not records or head["digest"] == digest.hex(), f"{where}, or a digest below it")
        end = sha256(ends[-1] + raw(head["digest"], where)).digest()
        about = {"file": f"ledger-{number:06d}.jsonl.gz", "starts_from": ends[-1].hex(), "ends_at": end.hex()}
        fits(head == {**about, "digest": head["digest"]}, where)
        ends, full, hidden = [*ends, end], full + more, hidden + others
    return ends, full, hidden


def verify(read: Callable[[str], bytes]) -> tuple[dict[str, Any], list[str]]:
    """Check all that *read* returns by name; return the manifest that it makes, and where the files end."""
    ends, full, hidden = archived(lines_of("archived.jsonl", read("archived.jsonl")))
    (where, head), *recent = lines_of("recent.jsonl", read("recent.jsonl"))
    fits(head == {"archived": False, "starts_from": ends[-1].hex()}, where)
    end, count, others = chain(ends[-1], recent)
    fits(not others, "recent.jsonl: a digest without its record")
    story = sha256(read("story.json")).digest()
    found = {
        "format": 1, "files": len(ends) - 1, "archived": full, "by_digest_only": hidden, "recent": count,
        "archive_ends_at": ends[-1].hex(), "chain_ends_at": end.hex(), "story_sha256": story.hex(),
        "head": sha256(end + story).hexdigest(),
    }  # fmt: skip
    said = json.loads(read("manifest.json"))
    wrong = [name for name in found.keys() | said.keys() if found.get(name) != said.get(name)]
    fits(not wrong, "manifest.json, or what it tells of: " + ", ".join(sorted(wrong)))
    return found, [each.hex() for each in ends]


def beside(name: str) -> bytes:
    """Return the file of that name beside this script."""
    return (Path(__file__).parent / name).read_bytes()


def main(arguments: list[str]) -> int:
    """Print what was found and return the exit status."""
    noted = [each for each in arguments if re.fullmatch("[0-9a-f]{64}", each)]
    bundles = [each for each in arguments if each not in noted]
    try:
        found, ends = verify(zipfile.ZipFile(bundles[0]).read if bundles else beside)
        for each in noted:
            fits(each in ends, f"{each}: was noted, but no file of the archive ends there")
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile, zlib.error) as error:
        print("DOES NOT FIT:", error)
        return 1
    print(f"records of this person:   {found['archived']} archived, {found['recent']} not archived yet")
    print(f"records of other people:  {found['by_digest_only']}, by digest only")
    print(f"files of the archive:     {found['files']}, the last ends at {found['archive_ends_at']}")
    print(f"everything fits, head:    {found['head']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
