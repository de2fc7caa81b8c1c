"""Processes are killed with -9 while they work: `make crash`. Slow, so not part of `make test`."""
