"""A bundle of evidence about one person: a zip that anybody can check offline, years later, with nothing but Python 3.

It shows this person's records and of other people's only digests, which still prove that no record was changed since a hash
was noted. `bundle_verify.py` goes into it as `verify.py`: it imports nothing of ours, and reads what is written here.

    story.json       what the installation says in its own words
    archived.jsonl   each file of the archive: {"digest", "ends_at", "file", "starts_from"}; if it holds a record of this person,
                     then also its lines: {"content", "hash"} of this person, {"digest"} of others
    recent.jsonl     {"archived": false, "starts_from"}, and the records that are not in the archive yet: {"content", "hash"}
    manifest.json    the counts and hashes that all of it makes; head = sha256(end of the chain + sha256(story.json))
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from handlers.errors import Rejected
from worker.store import volume
from worker.store.archive import Archive, Line, content_of
from worker.store.volume import ZERO, Volume

_README = """\
This is what one installation of unsubd keeps about one person and one sender.

To check it:  python3 verify.py     (in the unpacked folder; Python 3.9 or newer, nothing to install, no network)
It prints the head, a hash over everything here. Note the head and the end of the archive where nobody can change them.
A copy of verify.py that you trust more than this one is in unsubd's source: worker/store/bundle_verify.py.

What it proves: these records have not changed since the head was noted. If you noted the end of the archive earlier, from a
bundle of anybody's, "python3 verify.py HASH" says whether this archive still contains it: then no record that was archived by
that time was changed, removed or put in between. Records of other people are here as digests, which say nothing of them.

What it does not prove: that the installation told the truth when it wrote a record; that it shows all records of this person
(another person's digest and one held back look alike); that the pseudonym in the records is this person's address: only
the installation's key can compute it. Records in recent.jsonl are not archived yet: they are chained for this bundle only,
and are elsewhere in the chain later. After a crash a record may be in the archive twice; the first one counts.
"""


def write_bundle(
    path: Path, story: dict[str, Any], recent: Sequence[Line], archive: Archive, is_mine: Callable[[Line], bool]
) -> str:
    """Write the bundle to *path*, 0600, whole or not at all, and return its head in hex.

    Shape:   story: any JSON. recent: this person's records that are not in the archive yet. is_mine: may be shown in full.
    Errors:  Rejected  a file is there already, or cannot be written; or the archive is damaged.    permanent
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _refuse(path)
        with open(draft, "xb", opener=volume.private) as file:
            with ZipFile(file, "w") as bundle:
                head = _fill(bundle, story, recent, archive, is_mine)
            file.flush()
            os.fsync(file.fileno())
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # nobody made it meanwhile, nobody can now
        draft.rename(path)
        volume.sync(path.parent)
    except OSError as error:
        raise Rejected(f"--bundle: {error.strerror}, expected a new file in a folder that we may write") from error
    finally:
        _drop(draft)
    return head


def _refuse(path: Path) -> None:
    if os.path.lexists(path):
        raise Rejected("--bundle: the file exists, expected a new one: choose another name")


def _drop(draft: Path) -> None:
    if draft.parent.is_dir():
        draft.unlink(missing_ok=True)


def _fill(
    bundle: ZipFile, story: dict[str, Any], recent: Sequence[Line], archive: Archive, is_mine: Callable[[Line], bool]
) -> str:
    told = json.dumps(story, indent=1).encode() + b"\n"
    manifest: dict[str, Any] = {"format": 1, "recent": len(recent), "story_sha256": sha256(told).hexdigest()}
    manifest |= _archived(bundle, archive, is_mine)
    end = _recent(bundle, recent, bytes.fromhex(manifest["archive_ends_at"]))
    head = volume.chained(end, sha256(told).digest()).hex()
    manifest |= {"chain_ends_at": end.hex(), "head": head}
    _put(bundle, "story.json", told)
    _put(bundle, "manifest.json", json.dumps(manifest, indent=1).encode() + b"\n")
    _put(bundle, "verify.py", files("worker.store").joinpath("bundle_verify.py").read_bytes())
    _put(bundle, "README.txt", _README.encode())
    return head


def _archived(bundle: ZipFile, archive: Archive, is_mine: Callable[[Line], bool]) -> dict[str, Any]:
    """Write what is archived, a file at a time, and return what the manifest says of it."""
    count, full, hidden, end = 0, 0, 0, ZERO
    with bundle.open(_member("archived.jsonl"), "w", force_zip64=True) as out:
        for count, file in enumerate(archive.volumes(), 1):  # noqa: B007  (how many there were)
            lines = list(_shown(archive, file, is_mine))
            mine = sum(is_shown for is_shown, _ in lines)
            out.write(_header(file))
            if mine:
                out.writelines(line for _, line in lines)
                full, hidden = full + mine, hidden + len(lines) - mine
            end = file.ends_at
    return {"files": count, "archived": full, "by_digest_only": hidden, "archive_ends_at": end.hex()}


def _shown(archive: Archive, file: Volume, is_mine: Callable[[Line], bool]) -> Iterator[tuple[bool, bytes]]:
    """Yield each line as the bundle may show it, and whether that is in full."""
    for content, hash_ in file.contents():
        if is_mine(archive.line_in(file, content)):
            yield True, volume.line(content, hash_)
        else:
            yield False, b'{"digest":"%s"}\n' % sha256(content).hexdigest().encode()


def _header(file: Volume) -> bytes:
    about = {"file": file.path.name, "digest": file.digest.hex()}
    return volume.canonical(about | {"starts_from": file.starts_from.hex(), "ends_at": file.ends_at.hex()}) + b"\n"


def _recent(bundle: ZipFile, recent: Sequence[Line], end: bytes) -> bytes:
    """Write what is not archived yet and return the chain's end."""
    with bundle.open(_member("recent.jsonl"), "w", force_zip64=True) as out:
        out.write(volume.canonical({"archived": False, "starts_from": end.hex()}) + b"\n")
        for content in map(content_of, recent):
            end = volume.added(end, content)
            out.write(volume.line(content, end))
    return end


def _member(name: str) -> ZipInfo:
    member = ZipInfo(name)  # of 1980: when it was made, story.json says
    member.compress_type, member.external_attr = ZIP_DEFLATED, 0o600 << 16
    return member


def _put(bundle: ZipFile, name: str, content: bytes) -> None:
    bundle.writestr(_member(name), content)
