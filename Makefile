.DEFAULT_GOAL := help
SECONDS ?= 120
.PHONY: help setup run test crash soak browser fuzz lint bench pictures constraints clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## make .venv with everything that run and tests need
	@deploy/setup

run: setup ## start unsubd with a demo: nothing to configure
	.venv/bin/unsubd run --demo

test: ## check style and types, then run all tests
	@deploy/setup --servers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest

crash: ## kill -9 at every point of the path and at random, stop and starve servers: nothing may be lost (25 minutes)
	@deploy/setup --servers
	.venv/bin/pytest tests/crash --override-ini=addopts='-ra --strict-markers'
	.venv/bin/pytest tests/servers -m fault --override-ini=addopts='-ra --strict-markers -p no:schemathesis -n 2'

soak: ## ask by every way in for SECONDS=120 while things fail at random, and count who was lost
	@deploy/setup --servers
	UNSUBD_SOAK_SECONDS=$(SECONDS) .venv/bin/pytest tests/soak --override-ini=addopts='-ra --strict-markers -p no:schemathesis'

browser: ## drive console and pages in a real Chromium
	@deploy/setup --servers
	.venv/bin/pytest tests/browser --override-ini=addopts='-ra --strict-markers'

lint: setup ## check style and types only
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup ## measure how fast it is, beside the limits, in one run each (needs wrk); bench/*.json keeps the samples
	.venv/bin/python -m pip install --quiet --constraint deploy/constraints.txt --editable '.[dev,bench]'
	.venv/bin/python -m tests.bench.delivery
	.venv/bin/python -m tests.bench.drained
	.venv/bin/python -m tests.bench.queued
	.venv/bin/python -m tests.bench.memory
	.venv/bin/python -m tests.bench.store
	.venv/bin/python -m tests.bench.recovery
	.venv/bin/python -m tests.bench.served
	.venv/bin/python -m tests.bench.library
	.venv/bin/python -m tests.bench.decide
	.venv/bin/python -m tests.bench.drain --foreign 0
	.venv/bin/python -m tests.bench.readme

fuzz: setup ## put a million damaged mails through everything that decides
	nice .venv/bin/python -m tests.fuzz.run --inputs 1000000

pictures: setup ## take the README's pictures anew (needs chromium)
	.venv/bin/python -m tests.browser.pictures

constraints: setup ## move to the newest versions that pyproject.toml admits, and pin them
	.venv/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
	head -n 1 deploy/constraints.txt > deploy/constraints.new
	.venv/bin/python -m pip freeze --exclude-editable | LC_ALL=C sort -f >> deploy/constraints.new
	mv deploy/constraints.new deploy/constraints.txt

clean: ## remove .venv and everything else that was made here
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
