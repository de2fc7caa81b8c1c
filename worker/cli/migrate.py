"""`unsubd migrate`: what an older version wrote, moved to how this one writes it."""

from typing import Annotated

import typer

from worker.batch import VERSION
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import bar
from worker.installation import open_installation, open_servers
from worker.settings import Settings
from worker.store import format as store_format


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is to be moved; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the store to this version's format now; `unsubd work` does it by itself, beside its jobs."""
    settings = own_settings()
    found = _state(settings)
    moved = 0 if dry_run else _moved(settings, sum(found.waiting.values()))
    left = found if dry_run else _state(settings)
    if as_json:
        formats = {"store_format": left.format, "this_unsubd": store_format.FORMAT, "job_version": VERSION}
        say_json({**formats, "waiting": left.waiting, "moved": moved})
        return
    say(f"store: format {left.format}; this unsubd writes format {store_format.FORMAT}, and jobs of version {VERSION}")
    for sender, rows in sorted(left.waiting.items()):
        say(f"{rows:>12,} rows of {sender} to be moved")
    if dry_run and left.format < store_format.FORMAT:
        say("nothing was changed; programs of before must be stopped first: they fail on the new format")
    elif not dry_run:
        rest = "some are left: stop what still writes them" if left.waiting else "nothing of an older format is left"
        say(f"{moved:,} rows moved by this command; {rest}")


def _state(settings: Settings) -> store_format.State:
    with open_servers(settings) as (_, store):
        return store_format.state(store)


def _moved(settings: Settings, rows: int) -> int:
    done = 0
    with open_installation(settings) as installation, bar("moving", rows) as progress:
        for some in installation.store.migrate():
            done += some
            progress(done, "rows")
    return done


COMMANDS = (migrate,)
