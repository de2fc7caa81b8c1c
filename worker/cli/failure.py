"""How a command fails: one line per problem on stderr, and the exit code that scripts and systemd understand."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.errors import ConfigError, UnsubdError, exit_code
from worker.journal import Stderr


@contextmanager
def explained() -> Iterator[None]:
    """Turn a named failure into its lines and SystemExit with its sysexits code; a bug keeps its traceback (70)."""
    try:
        yield
    except (UnsubdError, ConfigError) as error:
        for line in str(error).splitlines():
            Stderr().write(f"unsubd: {line}\n")
        raise SystemExit(exit_code(error)) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
