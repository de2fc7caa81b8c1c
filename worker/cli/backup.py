"""`unsubd backup`, `restore` and `move`: an installation as a file, and on another server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handlers.errors import ConfigError
from worker import backup as copies
from worker.backup import file as backup_file
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import bar
from worker.installation import KEY_FILE, open_installation, open_servers
from worker.keys import keep_masters
from worker.settings import Settings, load_settings

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
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `unsubd backup` wrote.")], as_json: Json = False
) -> None:
    """Put a backup where nothing is; what was interrupted goes on, and nothing starts before all has come."""
    settings = _with_keys_of(source)
    with open_servers(settings) as servers, bar("restoring", backup_file.verified(source).keys) as progress:
        count = copies.restore(servers, source, settings.keys().fingerprints(), progress)
    if as_json:
        say_json({"keys": count})
    else:
        say(f"{count:,} keys restored; what came after the backup: unsubd reconcile")


def _with_keys_of(source: Path) -> Settings:
    """The settings; the embedded default without a key of its own takes the file's."""
    settings = own_settings(make=False)
    found = backup_file.verified(source).head.get("secret_keys")
    if found and settings.embedded and not settings.secret_keys.get_secret_value():
        keep_masters(settings.data_dir / KEY_FILE, found)
        settings = own_settings(make=False)
    return settings


def move(as_json: Json = False) -> None:
    """Put the embedded store of UNSUBD_DATA_DIR on the server of UNSUBD_REDIS_URL, where nothing is yet."""
    settings = load_settings()
    if settings.embedded:
        raise ConfigError("UNSUBD_REDIS_URL: not set, expected the server that the installation moves to")
    with open_servers(settings) as servers, bar("moving", None) as progress:
        count = copies.move(settings.data_dir, servers, settings.keys().fingerprints(), progress)
    say_json({"keys": count}) if as_json else say(f"{count:,} keys moved; {settings.data_dir} starts no more")


COMMANDS = (backup, restore, move)
