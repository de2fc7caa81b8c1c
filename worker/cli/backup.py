"""`unsubd backup`, `restore` and `move`: an installation as a file, and on another server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handlers.errors import ConfigError, Rejected
from worker import backup as copies
from worker.backup import file as backup_file
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import bar
from worker.installation import KEY_FILE, TOKEN_FILE, open_installation, open_servers
from worker.keys import keep_masters
from worker.settings import Settings, load_settings

_ALSO_THERE = (
    (KEY_FILE, "UNSUBD_SECRET_KEYS_FILE", "the master keys"),
    (TOKEN_FILE, "UNSUBD_ADMIN_TOKEN_FILE", "opens the console"),
    ("maildir", "UNSUBD_MAILDIR", "the drop folder: mail that is put there"),
)
_File = Annotated[Path, typer.Argument(metavar="FILE", help="- is standard output.")]


def backup(
    target: _File,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="The master keys, too: who has the file can sign tags.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the whole installation into one file, while it runs; what was interrupted goes on."""
    settings = own_settings()
    secret_keys = [key.hex() for key in settings.keys().masters] if with_keys else []
    with open_installation(settings) as installation, bar("writing", None) as progress:
        servers = installation.redis, installation.store_redis
        if str(target) == "-":
            copies.stream(servers, sys.stdout.buffer, secret_keys, progress)
            return
        count = copies.backup(servers, target, secret_keys, progress)
    if as_json:
        say_json({"file": str(target), "keys": count, "bytes": target.stat().st_size, "master_keys": with_keys})
        return
    say(f"{target}: {count:,} keys of Redis, {target.stat().st_size:,} bytes, read back and whole")
    if not with_keys:
        say("not in it: the master keys, without which it is of no use (--with-keys, or keep them apart)")
    say(f"not in it: files, such as the ledger's archive ({settings.archive}) and logins of mailboxes")


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `unsubd backup` wrote.")],
    keys_to: Annotated[
        Path | None, typer.Option(help="Only write its master keys there (0600), for UNSUBD_SECRET_KEYS_FILE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a backup where nothing is; what was interrupted goes on, and nothing starts before all has come."""
    whole = backup_file.verified(source)
    if keys_to is not None:
        _write_keys(whole.head, keys_to)
        return
    settings = _with_keys_of(whole.head)
    with open_servers(settings) as servers, bar("restoring", whole.keys) as progress:
        count = copies.restore(servers, source, whole, settings.keys().fingerprints(), progress)
    if as_json:
        say_json({"keys": count})
    else:
        say(f"{count:,} keys restored; what came after the backup: unsubd reconcile")


def _write_keys(head: backup_file.Line, path: Path) -> None:
    if not head.get("secret_keys"):
        raise Rejected("the backup holds no master keys: it was written without --with-keys")
    try:
        keep_masters(path, head["secret_keys"])
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a place for a new file") from error
    say(f"{path}: {len(head['secret_keys'])} master keys; set UNSUBD_SECRET_KEYS_FILE to it")


def _with_keys_of(head: backup_file.Line) -> Settings:
    """The settings; the embedded default takes the file's keys, before one that it made for itself meanwhile."""
    settings = own_settings(make=False)
    found, own = head.get("secret_keys", []), [key.hex() for key in settings.keys().masters]
    missing = [key for key in found if key not in own]
    if missing and (not settings.embedded or load_settings().keys().masters):
        raise ConfigError(
            "UNSUBD_SECRET_KEYS: the backup's master keys are not here, but in the file:"
            " unsubd restore FILE --keys-to PATH writes them, then set UNSUBD_SECRET_KEYS_FILE to PATH"
        )
    if missing:
        keep_masters(settings.data_dir / KEY_FILE, [*found, *(key for key in own if key not in found)], anew=True)
        settings = own_settings(make=False)
    return settings


def move(as_json: Json = False) -> None:
    """Put the embedded store of UNSUBD_DATA_DIR on the server of UNSUBD_REDIS_URL, where nothing is yet."""
    settings = load_settings()
    if settings.embedded:
        raise ConfigError("UNSUBD_REDIS_URL: not set, expected the server that the installation moves to")
    with open_servers(settings) as servers, bar("moving", None) as progress:
        count = copies.move(settings.data_dir, servers, settings.keys().fingerprints(), progress)
    if as_json:
        say_json({"keys": count})
        return
    say(
        f"{count:,} keys moved; the store in {settings.data_dir} starts no more. What else was there, and how to keep it:"
    )
    for name, setting, what in _ALSO_THERE:
        if (path := settings.data_dir / name).exists():
            say(f"  {setting}={path}  {what}")


COMMANDS = (backup, restore, move)
