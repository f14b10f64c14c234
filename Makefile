# `make demo` and `make test` do all the set-up they need; see CONTRIBUTING.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The Python of the images, for every platform, and no addresses.
PIN = UV_CUSTOM_COMPILE_COMMAND='make requirements' $(BIN)/uv pip compile --quiet --upgrade \
	--python-version 3.12 --universal --generate-hashes --no-emit-index-url --no-emit-find-links
# What every request passes through: its branch coverage is 100 %.
CORE := budget build encoding request response routing state stream tokens transport

.DEFAULT_GOAL := help

.PHONY: help
help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo test coverage mutants
demo: $(VENV)/local  ## run the whole stack on this machine: Envoy, two pools, traffic, a report
	$(BIN)/dualpool demo

test: $(VENV)/dev  ## run all tests; those that need a real vLLM say how to provide one
	$(BIN)/python -m pytest -n 3 $(addprefix --cov=extproc.,$(CORE)) --cov-report=

coverage: $(VENV)/dev  ## report what the last `make test` left uncovered in the core; below 100 % fails
	$(BIN)/coverage report --fail-under=100

mutants: $(VENV)/dev  ## mutate the core at 60 random places and run its tests; 5 minutes; MUTANTS='--count N --seed N'
	$(BIN)/python -m tests.mutation $(MUTANTS)

.PHONY: lint types contracts check-protos wheel
lint: $(VENV)/dev  ## check style and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev  ## check types with mypy, strict
	$(BIN)/mypy

contracts: $(VENV)/dev  ## check which room may import which
	$(BIN)/lint-imports

check-protos: $(VENV)/dev  ## fail if extproc/protos differs from what protos/ generates
	$(BIN)/python protos/generate.py --check

wheel: $(VENV)/pip  ## build a wheel into dist/, install it in an empty environment, and try it
	.ci/try-wheel $(BIN)/python

.PHONY: compiled test-compiled
COMPILED := build/compiled
compiled: $(COMPILED)/extproc  ## compile what every request passes through into build/compiled; a C compiler, a minute

$(COMPILED)/extproc: $(VENV)/dev hatch_build.py $(shell find extproc -name '*.py' -o -name '*.c')
	rm -rf $(COMPILED)
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m hatchling build -t wheel -d $(COMPILED)/wheel
	$(BIN)/python -m zipfile -e $(COMPILED)/wheel/dualpool-*.whl $(COMPILED)

test-compiled: compiled  ## run the unit tests of the rooms that have compiled modules on these
	.ci/test-compiled $(BIN)/python $(COMPILED)

.PHONY: image release
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' extproc/__init__.py)
PLATFORMS ?= linux/amd64
image:  ## build the service's image, its SBOM and its provenance into dist/; needs docker buildx
	@docker buildx version >/dev/null 2>&1 || { echo 'docker buildx is missing. Install it, then:' \
		'docker buildx create --use --driver docker-container' >&2; exit 1; }
	mkdir -p dist
	docker buildx build --platform $(PLATFORMS) --target service --sbom=true --provenance=mode=max \
		--tag dualpool:$(VERSION) --output type=oci,dest=dist/dualpool-$(VERSION).tar .

release: $(VENV)/release  ## make what a release consists of in dist/; TAG=vX.Y.Z is compared with the version
	PLATFORMS=$(PLATFORMS) .ci/release $(BIN)/python $(TAG)

.PHONY: envoy-config protos requirements
envoy-config: $(VENV)/dev  ## regenerate envoy/envoy.yaml, envoy/*/routing.yaml and docs/examples/join/after.yaml
	$(BIN)/dualpool config envoy envoy/dualpool.yaml > envoy/envoy.yaml
	$(BIN)/dualpool config istio envoy/kubernetes/settings.yaml > envoy/istio/routing.yaml
	$(BIN)/dualpool config envoy-gateway envoy/kubernetes/settings.yaml > envoy/gateway/routing.yaml
	$(BIN)/dualpool config inference-pools envoy/kubernetes/settings.yaml > envoy/inference-pools/routing.yaml
	$(BIN)/python -m tests.support.joined_envoy

protos: $(VENV)/dev  ## regenerate extproc/protos
	$(BIN)/python protos/generate.py

requirements: $(VENV)/uv  ## pin the images' packages anew, with hashes
	printf 'jinja2>=3.1.6,<4\nredis[hiredis]>=6,<9\n' | $(PIN) -o deploy/requirements.txt pyproject.toml -
	printf 'tokenizers>=0.21,<1\n' | $(PIN) --no-deps -o deploy/requirements-tokenizer.txt -
	printf 'bpe-openai>=0.1.4,<0.2\npydantic>=2.11,<3\n' | $(PIN) -c deploy/requirements.txt -o deploy/requirements-pool.txt -
	printf 'grpc-stubs>=1.53,<2\nhatchling>=1.27,<2\nmypy>=2.4,<3\nsetuptools>=80\ntypes-protobuf>=6,<8\n' \
		| $(PIN) --no-emit-package grpcio -o deploy/requirements-build.txt -

.PHONY: site pictures
site: $(VENV)/dev  ## build the documentation as a site into build/site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/dev  ## draw docs/images/*.svg
	$(BIN)/python docs/site/pictures.py

.PHONY: screenshots
screenshots: $(VENV)/dev  ## take docs/images/page-*.png of a running service; needs Chromium; ARGS='--url URL'
	$(BIN)/python -m tests.support.page_pictures $(ARGS)

.PHONY: bench soak paper versus-vllm versus-recorded
bench: $(VENV)/dev  ## measure what the service costs; ARGS='--only SECTION', '--quick', '--help'; an hour
	@! command -v cc >/dev/null || $(MAKE) --no-print-directory compiled
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/local  ## send 100,000 requests while clients leave and everything restarts; minutes
	$(BIN)/python -m benchmarks.soak $(ARGS)

paper: $(VENV)/dev  ## compare our figures with the papers'; PAPER='--fast', '--trace FILE', '--sr-sim PATH'
	$(BIN)/python -m extproc.papers.compare $(PAPER)

versus-vllm: $(VENV)/dev  ## compare the simulator with real vLLM: DUALPOOL_VLLM=DIR or VERSUS='--pools URL,URL'
	$(BIN)/python -m extproc.profiling.versus $(VERSUS)

versus-recorded: $(VENV)/dev  ## compare the simulator with recorded runs of real vLLM: RECORDED=DIR
	$(BIN)/python -m extproc.profiling.recorded $(RECORDED)

.PHONY: clean
clean:  ## remove the environment and what was built
	rm -rf $(VENV) $(VENV)-wheel build dist .coverage

$(VENV)/local: $(VENV)/pip pyproject.toml extproc/__init__.py
	$(BIN)/pip install --quiet --editable '.[local]'
	@touch $@

$(VENV)/dev: $(VENV)/pip pyproject.toml extproc/__init__.py
	$(BIN)/pip install --quiet --editable '.[dev]'
	@.ci/mend-protos $(BIN)/python
	@touch $(VENV)/local $@

$(VENV)/release: $(VENV)/pip
	$(BIN)/pip install --quiet 'build>=1.2,<2' 'cyclonedx-bom>=7,<8'
	@touch $@

$(VENV)/uv: $(VENV)/pip
	$(BIN)/pip install --quiet 'uv>=0.13,<1'
	@touch $@

# Debian and Ubuntu package the module that creates environments separately.
$(VENV)/pip:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory debian-venv
	$(PYTHON) -m venv $(VENV)
	@touch $@

.PHONY: debian-venv
debian-venv:
	@echo 'Python lacks the module ensurepip: installing python3-venv'
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	else sudo apt-get update -qq && sudo apt-get install -y -qq python3-venv; fi
