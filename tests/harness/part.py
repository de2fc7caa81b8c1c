"""Runs one part of unsubd in a process of its own, with no supervisor: `python -m tests.harness.part NAME PARENT`."""

import sys

from worker.cli.failure import explained
from worker.installation import with_embedded_secrets
from worker.journal import configure_logging
from worker.service import PARTS
from worker.settings import load_settings
from worker.supervisor import end_with_parent


def main(name: str, parent: str) -> None:
    """Run the part until it is stopped, or process *parent* ends."""
    end_with_parent(int(parent))
    configure_logging()
    with explained():
        PARTS[name](with_embedded_secrets(load_settings()))


if __name__ == "__main__":
    main(*sys.argv[1:])
