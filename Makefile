# `make retrain` and `make test` are all that a newcomer needs; both install first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Compiled modules make every stage start seconds faster.
unexport PYTHONDONTWRITEBYTECODE
# The system's certificates, as pip and git use them: networks that inspect TLS have one of their own.
export UV_SYSTEM_CERTS ?= true

PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv || echo .uv/bin/uv)

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## install everything, versions and hashes from requirements.lock, into .venv

.venv/.installed: requirements.lock pyproject.toml infra/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else f"error: Python 3.11 to 3.14 is needed, {sys.version.split()[0]} found; run make PYTHON=python3.12")'
	@if ! command -v $(UV) >/dev/null; then $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --require-hashes -r infra/bootstrap.lock; fi
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

retrain: install ## train, judge, publish; `Error 3` is a refusal, no fault
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.retrain $(ARGS)

test: install ## run all tests, a file per core at once, 4 at most
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

test-examples: install ## follow the recipes of examples/ on the published sets in DATA=FOLDER, unpacked or as .tar.gz
	@test -n "$(DATA)" || { echo "error: say where the published sets are: make test-examples DATA=FOLDER"; exit 1; }
	@DATA="$(DATA)" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/examples $(ARGS)

lint: install ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## measure the project's own promises; writes a dated record into benchmarks/
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks $(ARGS)

lock: ## resolve requirements.lock anew, and the server's part of it
	$(UV) pip compile --quiet --universal --generate-hashes --group dev pyproject.toml --output-file requirements.lock --no-header
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 infra/serve.in --constraints requirements.lock --overrides infra/serve.overrides --output-file infra/serve.lock --no-header

.PHONY: help install retrain test test-examples lint bench lock
