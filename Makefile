# `make demo` and `make test` do all the set-up they need; see README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The Python of the images, for every platform, and no addresses.
PIN = UV_CUSTOM_COMPILE_COMMAND='make requirements' $(BIN)/uv pip compile --quiet --upgrade \
	--python-version 3.12 --universal --generate-hashes --no-emit-index-url --no-emit-find-links

.PHONY: demo test bench-envoy soak lint types contracts envoy-config protos check-protos requirements clean

demo: $(VENV)/local  ## the whole stack on this machine: real Envoy, two pools, traffic, a report
	$(BIN)/dualpool demo

test: $(VENV)/dev  ## all tests; those that need a real vLLM say how to give them one
	$(BIN)/python -m pytest

bench-envoy: $(VENV)/local  ## what each form costs Envoy, the service and the client; some minutes
	$(BIN)/python -m benchmarks.envoy $(ARGS)

soak: $(VENV)/local  ## 100,000 requests while clients leave and everything is restarted; minutes
	$(BIN)/python -m benchmarks.soak $(ARGS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

contracts: $(VENV)/dev
	$(BIN)/lint-imports

envoy-config: $(VENV)/dev  ## write envoy/envoy.yaml anew
	$(BIN)/dualpool config envoy envoy/dualpool.yaml > envoy/envoy.yaml

protos: $(VENV)/dev  ## generate extproc/protos anew
	$(BIN)/python protos/generate.py

requirements: $(VENV)/uv  ## pin anew, with hashes, what the images are built with
	$(PIN) pyproject.toml -o deploy/requirements.txt
	echo 'bpe-openai>=0.1.4,<0.2' | $(PIN) -c deploy/requirements.txt -o deploy/requirements-pool.txt -
	echo 'hatchling>=1.27,<2' | $(PIN) -o deploy/requirements-build.txt -

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

$(VENV)/uv: $(VENV)/pip
	$(BIN)/pip install --quiet 'uv>=0.13,<1'
	@touch $@

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

.PHONY: paper versus-vllm
paper: $(VENV)/dev  ## the papers' figures beside ours; PAPER='--fast', '--trace FILE', '--sr-sim PATH'
	$(BIN)/python -m extproc.papers.compare $(PAPER)

versus-vllm: $(VENV)/dev  ## real vLLM beside the simulator: DUALPOOL_VLLM=DIR or VERSUS='--pools URL,URL'
	$(BIN)/python -m extproc.profiling.versus $(VERSUS)
