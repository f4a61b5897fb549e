# Each target works from a fresh clone: it makes .venv and installs what it needs from the hashed requirements.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ITSELF := $(PIP) install --no-deps --no-build-isolation --editable .

# As many at a time as there are cores. What takes longer is run one after another: some of it keeps real time.
FAST := $(BIN)/python -m pytest -m "not acceptance" --numprocesses logical --maxprocesses 8 --dist worksteal

export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help demo test acceptance check format lock clean

help: ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: .venv/runtime.stamp ## Calibrate against the embedded mock: about a minute, once installed
	$(BIN)/redline calibrate --target mock --profile demo

test: .venv/dev.stamp ## Run the fast tests
	$(FAST)

acceptance: .venv/dev.stamp ## Run what takes longer: kills, budgets, browsers, live calibrations
	$(BIN)/python -m pytest -m acceptance

check: .venv/dev.stamp ## Check format, lint, types and import contracts, then run the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(FAST)

format: .venv/dev.stamp ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Names no index: where packages come from is the business of whoever installs.
LOCK := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --no-strip-extras --allow-unsafe \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
DEV_GROUP := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")

lock: .venv/dev.stamp ## Pin the newest releases, with their hashes
	$(PIP) install pip-tools
	$(LOCK) --build-deps-for editable --output-file requirements.txt pyproject.toml
	$(BIN)/python -c '$(DEV_GROUP)' > .venv/dev.in
	$(LOCK) --constraint requirements.txt --output-file requirements-dev.txt .venv/dev.in

clean: ## Remove .venv and what tools left behind
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "redline needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/runtime.stamp: requirements.txt pyproject.toml | .venv/bin/python
	$(PIP) install --require-hashes --requirement requirements.txt
	$(ITSELF)
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/runtime.stamp
	$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@
