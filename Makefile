# Everything a person needs, from a bare checkout: Python 3.11+, make and a network for packages.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/tools/bin/uv
PIP := $(VENV)/tools/bin/python -m pip --disable-pip-version-check --python $(BIN)/python
# Where torch for the processor is, if pip does not find it by itself; make TORCH_INDEX= leaves it out.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export UV_NO_CONFIG := 0
export LITELLM_LOCAL_MODEL_COST_MAP := True

.PHONY: help setup setup-test demo test lint types unit bench mutation lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "wanted: Python 3.11 or newer; found: " + sys.version.split()[0] + "; possible: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)/tools
	@$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt

$(VENV)/.run: $(UV) requirements/run.txt pyproject.toml
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement requirements/run.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement requirements/test.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.test requirements/bench.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement requirements/bench.txt
	@touch $@

# torch is an extra. Tests that need it are skipped, and say so, where it cannot be had; then this is not tried again
# before something that it depends on changes.
$(VENV)/.torch: $(VENV)/.test requirements/torch.txt requirements/torch_build.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement requirements/torch.txt
	@$(PIP) install --quiet --no-deps --only-binary :all: --requirement requirements/torch_build.txt 2>$@.log \
		|| { test -n "$(TORCH_INDEX)" && $(PIP) install --quiet --retries 1 --no-deps --only-binary :all: \
			--index-url "$(TORCH_INDEX)" --requirement requirements/torch_build.txt 2>>$@.log; } \
		|| echo "torch is not installed: wanted: a build for the processor; found: $@.log says what; possible: make setup-test TORCH_INDEX=<an index that has it>, after rm $@. Everything else works; tests that need torch are skipped."
	@touch $@

setup: $(VENV)/.run  ## install what running needs into .venv
	@echo "Ready. Next: source $(VENV)/bin/activate, then dspy-opt init or dspy-opt serve"

setup-test: $(VENV)/.test $(VENV)/.torch  ## install what testing needs too, and torch for the processor

demo: $(VENV)/.run  ## optimize a real agent with a local language model and show the proof
	@$(BIN)/dspy-opt demo

test: setup-test lint types unit  ## lint, type-check and run every test

lint: setup-test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-cache

types: setup-test
	@$(BIN)/mypy

# Bytecode is kept, even where the machine says otherwise: tests start a hundred processes that import 2,000 modules.
# There is a worker for every core: more threads in BLAS and OpenMP would only wait for one another, and spin meanwhile.
unit: setup-test
	@rm -f .coverage .coverage.*
	@PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term --cov-fail-under=95

bench: $(VENV)/.bench $(VENV)/.torch  ## measure against the alternatives, paired in one run
	@$(BIN)/python -m benchmarks

mutation: setup-test  ## break statistics, ledger and budget on purpose; every break must turn a test red
	@$(BIN)/python -m benchmarks.mutation

lock: $(UV)  ## compile requirements/ anew
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --output-file requirements/run.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --constraint requirements/run.txt pyproject.toml --group test --output-file requirements/test.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --constraint requirements/test.txt --group bench --output-file requirements/bench.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --constraint requirements/test.txt requirements/torch.in --output-file requirements/torch.txt
	@echo uv | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header - --output-file requirements/uv.txt

clean:  ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov
