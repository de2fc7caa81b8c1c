"""What this process has at home: settings, keys, files, disk."""

import os
import shutil
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from handlers.errors import ConfigError
from handlers.tag import AddressTemplate, Tag, mint, read
from worker.doctor.finding import Finding, fail, ok, warn
from worker.installation import KEY_FILE, TOKEN_FILE, with_embedded_secrets
from worker.settings import Settings, setting_name, too_open, unknown_names
from worker.store.archive import Archive

_FULL_BYTES, _NEARLY_FULL_BYTES = 200 * 2**20, 2**30
_LEAST_BUDGET = 34  # characters: nine of ten real addresses are shorter
_EXAMPLE = ("sender", 9999)  # 6 characters and 4 digits, as most have


def settings(settings: Settings, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Say which settings there are, and which nobody reads, with the nearest right name."""
    for name in (unknown := unknown_names(environ)):
        near = _nearest(name)
        remedy = f"did you mean {near}?" if near else "see every name: unsubd config"
        yield fail("settings", f"{name}: no such setting, so nobody reads it", remedy)
    count = sum(name.startswith("UNSUBD_") for name in environ)
    if not unknown:
        yield ok("settings", f"{count} set, all known")
    if settings.address is None:
        remedy = "UNSUBD_ADDRESS=u+{tag}@unsub.example.com, with a domain of yours"
        yield warn("settings", "UNSUBD_ADDRESS is not set: no header can be made", remedy)


def _nearest(name: str) -> str:
    known = [setting_name(field) for field in Settings.model_fields]
    known += [each + "_FILE" for each in known if "<" not in each]
    return next(iter(get_close_matches(name, known, 1, 0.75)), "")


def keys(settings: Settings) -> Iterator[Finding]:
    """Sign a tag and read it back, and say how long an address may be that stays readable."""
    ring = with_embedded_secrets(settings, make=False).keys()
    template = settings.template() if settings.address else AddressTemplate("u+", "unsub.example.com")
    tag = Tag("doctor", 0, "d@example.com")
    minted = mint(ring, tag, template)
    if not minted.stored and read(minted.address, ring).tag != tag:
        raise ConfigError("UNSUBD_SECRET_KEYS: a tag signed with the first key does not read back")
    names = ring.fingerprints()
    yield ok("keys", f"{len(names)} active (newest {names[0]}), a tag signed and read back")
    budget = template.readable_budget(*_EXAMPLE)
    told = f"prefix {template.prefix!r}: addresses up to {budget} characters stay readable, longer ones are stored"
    if budget < _LEAST_BUDGET:
        yield warn("keys", told, "a shorter prefix in UNSUBD_ADDRESS, e.g. u+")
    else:
        yield ok("keys", told)


def files(settings: Settings) -> Iterator[Finding]:
    """Say whether anybody else may read a file that holds a secret."""
    paths = _secret_files(settings)
    for path in (open_ones := [path for path in paths if too_open(path)]):
        yield fail("files", f"{path}: others may read it, expected mode 0600", f"chmod 600 {path}")
    if not open_ones:
        yield ok("files", f"{len(paths)} with secrets, none that others may read")


def _secret_files(settings: Settings) -> list[Path]:
    own = [settings.data_dir / name for name in (KEY_FILE, TOKEN_FILE)] if settings.embedded else []
    named = [
        Path(path)
        for name, path in os.environ.items()
        if name.startswith("UNSUBD_") and name.endswith("_FILE") and name != "UNSUBD_IMAP_CA_FILE"
    ]
    oauth = [*([settings.imap_oauth] if settings.imap_oauth else []), *settings.imap_oauths.values()]
    return [path for path in [*own, *named, *oauth] if path.exists()]


def archive(folder: Path) -> Iterator[Finding]:
    """Where old months of the ledger go; unused, it is made when the first one does."""
    nearest = _nearest_folder(folder)
    if not os.access(nearest, os.W_OK | os.X_OK) or not nearest.is_dir():
        raise ConfigError(f"UNSUBD_ARCHIVE_DIR: {nearest}: not a folder that we may write, expected one for the ledger")
    yield ok("archive", f"{len(Archive(folder).files())} files in {folder}")


def disk(settings: Settings) -> Iterator[Finding]:
    """Say how much room there is where we write."""
    folders = {
        _nearest_folder(each) for each in ([settings.data_dir] if settings.embedded else []) + [settings.archive]
    }
    devices = {folder.stat().st_dev: folder for folder in sorted(folders)}
    for folder in devices.values():
        usage = shutil.disk_usage(folder)
        told = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GB free at {folder}"
        if usage.free < _FULL_BYTES:
            yield fail("disk", told, "make room: a full disk stops every write")
        elif usage.free < _NEARLY_FULL_BYTES or usage.free < usage.total / 20:
            yield warn("disk", told, "make room before it is full: then every write stops")
        else:
            yield ok("disk", told)


def _nearest_folder(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())
