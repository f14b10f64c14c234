# `make demo` and `make test` do all the set-up they need; see README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types contracts protos check-protos clean

demo: $(VENV)/local  ## the whole stack on this machine: real Envoy, two pools, traffic, a report
	$(BIN)/dualpool demo

test: $(VENV)/dev  ## all tests; those that need a real vLLM say how to give them one
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

contracts: $(VENV)/dev
	$(BIN)/lint-imports

protos: $(VENV)/dev  ## generate extproc/protos anew
	$(BIN)/python protos/generate.py

check-protos: $(VENV)/dev  ## fail where extproc/protos is not what protos/ generates
	$(BIN)/python protos/generate.py --check

clean:
	rm -rf $(VENV)

$(VENV)/local: $(VENV)/pip pyproject.toml
	$(BIN)/pip install --quiet --editable '.[local]'
	@touch $@

$(VENV)/dev: $(VENV)/pip pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(VENV)/local $@

# Debian and Ubuntu keep the part of Python that makes environments in a package of its own.
$(VENV)/pip:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory debian-venv
	$(PYTHON) -m venv $(VENV)
	@touch $@

.PHONY: debian-venv
debian-venv:
	@echo 'Python lacks the module ensurepip: installing python3-venv'
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	else sudo apt-get update -qq && sudo apt-get install -y -qq python3-venv; fi
