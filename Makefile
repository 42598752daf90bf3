# `make run` and `make test` are all a newcomer needs; `make help` lists the rest.
# The system's own Python where it will do and none was chosen: distributions build it with every
# optimization, other tools often do not.
CAN_SERVE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
CHOSEN := $(VIRTUAL_ENV)$(CONDA_PREFIX)$(PYENV_VERSION)$(pythonLocation)
PYTHON ?= $(if $(CHOSEN),python3,$(shell /usr/bin/python3 -c '$(CAN_SERVE)' 2>/dev/null && echo /usr/bin/python3 || echo python3))
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-bench

.DEFAULT_GOAL := help
.PHONY: help install install-dev run production-local check lint types test coverage test-production test-ui screenshots format lock chaos histories release-histories rolling bench bench-scale clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## build .venv with the locked dependencies

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is needed: apt install python3-venv" >&2; exit 1; }
	@echo "Building $(VENV) on $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created requirements.txt pyproject.toml
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install-dev: $(VENV)/.installed-dev  ## ... and the tools of the tests

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

run: install  ## start the engine, a worker, the API and the sample agents
	@$(BIN)/orchestrator run

production-local: install  ## the topology of docker-compose.yml from programs of this machine
	@$(BIN)/python -m deploy.local

check: lint types  ## format, lint, import layers, types

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: install-dev
	$(BIN)/mypy .

# The tests leave a part of two cores idle, in which the types are checked.
test: lint  ## all checks and tests, coverage floor
	@$(MAKE) --no-print-directory --jobs 2 types coverage

# The tests start the product often: Python is to compile it once.
coverage: export PYTHONDONTWRITEBYTECODE =
coverage: install-dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-production: install-dev  ## the end-to-end tests against the topology of production-local (docs/docker.md)
	$(BIN)/python -m pytest tests/e2e --topology production --timeout 600

test-ui: install-dev  ## the dashboard in headless Chromium (part of `make test` too)
	$(BIN)/python -m pytest tests/ui

screenshots: install-dev  ## take the pictures of docs/dashboard anew
	$(BIN)/python -m tests.ui.screenshots

format: install-dev  ## put the code into the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## renew requirements.txt and requirements-dev.txt (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" pyproject.toml -o requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" -c requirements.txt --group dev -o requirements-dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" --group bench -o bench/peers/requirements.txt

SEED ?=
SECONDS ?= 600

chaos: install-dev  ## the fault suite: ten minutes of faults, then what was promised is checked (docs/chaos.md)
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

release-histories: install-dev  ## keep the present histories as those of a version, for good: make release-histories VERSION=1.2.0
	@test -n "$(VERSION)" || { echo "Name the version that is released: make release-histories VERSION=1.2.0" >&2; exit 1; }
	@test ! -e tests/histories/$(VERSION) || { echo "tests/histories/$(VERSION) is there: what was released does not change" >&2; exit 1; }
	@mkdir tests/histories/$(VERSION)
	@cp tests/histories/*.json tests/histories/$(VERSION)/

rolling: install-dev  ## restart two APIs and two workers again and again under load; nothing may be lost
	$(BIN)/python -m bench.rolling

histories: install-dev  ## record the workflow histories that the replay tests use
	$(BIN)/python -m tests.histories.record

$(PEERS)/.installed: bench/peers/requirements.txt bench/peers/package-lock.json
	@echo "Installing what is compared into $(PEERS) ..."
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r bench/peers/requirements.txt
	@npm ci --silent --ignore-scripts --prefix bench/peers || echo "Restate is left out: its npm package could not be installed." >&2
	@touch $@

bench: install-dev $(PEERS)/.installed  ## measure, side by side, and print the ratios
	$(BIN)/python -m bench.compare --write docs/performance
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.dispatch
	$(BIN)/python -m bench.batch
	$(BIN)/python -m bench.memory

bench-scale: install-dev  ## measure growth: processes, tasks, waiting tasks, agents
	$(BIN)/python -m bench.scale

clean:  ## remove the venvs and what tests and runs left
	rm -rf $(VENV) $(PEERS) bench/peers/node_modules .data .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
