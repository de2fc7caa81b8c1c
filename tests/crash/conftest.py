"""The closing line of the crash matrix."""

import pytest

from tests.crash.tally import TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the matrix did, if it ran."""
    if TALLY in config.stash and config.stash[TALLY].kills:
        terminalreporter.write_line(f"crash matrix: {config.stash[TALLY]}")
