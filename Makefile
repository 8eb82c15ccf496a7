# Everything that a person or a machine does with this checkout. `make` alone lists the targets.
#
# The environment is .venv, made from requirements.lock (versions and hashes) and made anew only when that or
# pyproject.toml has changed. PYTHON=/path/to/python chooses another interpreter, ARGS="…" adds arguments to pytest.

PYTHONS := python3.11 python3.12 python3
IS_FIT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for python in $(PYTHONS); do \
	$$python -c '$(IS_FIT)' 2>/dev/null && { echo $$python; break; }; done)

# What ARGS chooses may have tests of one kind only; pytest says 5 where it finds none.
NONE_IS_FINE := $(if $(ARGS), || [ $$? -eq 5 ])

VENV := .venv
KNOWN ?= 40
FOR ?= 5m
STAMP := $(VENV)/.made-from-lock
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo test quick check lint fast long engines seeds compiled format docs lock clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

env: $(STAMP) ## Make the environment in .venv, and compile Gary for it
	@$(BIN)/python -m compileall -q crdt gossip gary

demo: $(STAMP) ## Five agents on this machine, one of them killed, all of it watched
	@$(BIN)/gary demo

test: fast long engines ## All tests

quick: lint fast ## What should pass before every commit: lint, types and the fast tests

check: lint test seeds ## All that has to pass: lint, types, all tests and seeds; some twenty minutes

lint: $(STAMP) ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fast: $(STAMP) ## The tests that take a minute or two together, on all cores
	$(BIN)/python -m pytest -m "not engine and not long" --numprocesses auto --dist worksteal $(ARGS)$(NONE_IS_FINE)

long: $(STAMP) ## Agents as processes, and long lives of whole clusters in virtual time
	$(BIN)/python -m pytest -m long --numprocesses auto --dist worksteal $(ARGS)$(NONE_IS_FINE)

engines: $(STAMP) ## The tests on engines, two at a time; skipped with the reason where there are none
	$(BIN)/python -m pytest -m engine --numprocesses 2 --dist worksteal $(ARGS)$(NONE_IS_FINE)

seeds: $(STAMP) ## Random faults in virtual time: KNOWN seeds, then fresh ones for as long as FOR says
	$(BIN)/python -m simulations seeds --compiled --fixed $(KNOWN) --fresh $(FOR)

compiled: $(STAMP) ## Compile what runs most in simulations
	@$(BIN)/python -m simulations seeds --compiled --fixed 0 --fresh 0s

format: $(STAMP) ## Format all code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP) ## Write anew what the documents show of the code
	$(BIN)/python -m gary.cli.reference > docs/reference/cli.md
	$(BIN)/python -m gary.compose reference > docs/reference/compose.md
	$(BIN)/python -m tests.docs_reference
	$(BIN)/python -m simulations lifeguard --from docs/internals/lifeguard.json --json --plots docs/internals > /dev/null

$(STAMP): pyproject.toml docs/extending/grpc/pyproject.toml requirements.lock
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c '$(IS_FIT)'; then \
		echo "Gary needs Python 3.11 or 3.12; none of $(PYTHONS) is one." >&2; \
		echo "Install one (Debian 12: apt install python3 python3-venv), or say: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make environments: its modules venv and ensurepip are a package of their own." >&2; \
		echo "Debian and Ubuntu: apt install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
		exit 1; fi
	@echo "Making the environment in $(VENV) with $(PYTHON); this takes about half a minute." >&2
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . --editable docs/extending/grpc
	@touch $@

lock: ## Choose versions anew and write requirements.lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --upgrade --extra compiled --extra dask --extra dev --extra plots --all-build-deps \
		--allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --output-file requirements.lock pyproject.toml

clean: ## Remove what was made here
	rm -rf $(VENV) build dist *.egg-info docs/extending/grpc/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
