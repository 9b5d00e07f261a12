# Needs GNU make and Python 3.11, 3.12 or 3.13. Everything else is put into .venv, from the lock.
# Another Python than the newest one found: make install PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast simulate fuzz chaos bench bench-recovery bench-failover soak lint format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## Install into .venv what the lock names; the other targets do so when it is needed

run: $(INSTALLED) ## Start all of it, Kafka included, with an order every second; Ctrl-C stops it
	@$(BIN)/orders up --rate 1

test: $(INSTALLED) ## Run all tests; the last lines say what was skipped, and why
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(INSTALLED) ## Run the tests that need no broker
	@$(BIN)/python -m pytest tests/unit tests/topology

simulate: $(INSTALLED) ## Run the core in SEEDS=1000 simulated worlds of each guarantee; a failing one is shown
	@$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),1000)

fuzz: $(INSTALLED) ## Ask all services what no client would ask for MINUTES=10, from a SEED=; they must answer as documented
	@FUZZ_MINUTES=$(or $(MINUTES),10) $(if $(SEED),FUZZ_SEED=$(SEED)) $(BIN)/python -m pytest tests/contracts/test_openapi.py

chaos: $(INSTALLED) ## Break workers, brokers, networks, databases and mail under load for MINUTES=10, from a SEED=; exit code 1 if a promise breaks
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

bench: $(INSTALLED) ## Measure POST to VALIDATED at several loads: core and all services in one worker, core apart; minutes
	@$(BIN)/python bench/latency.py

soak: $(INSTALLED) ## Watch memory and handles of a worker under steady load; MINUTES=30 RATE=60
	@$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),60)

bench-recovery: $(INSTALLED) ## Measure how a worker rebuilds the state of a million orders: time, rate, memory; minutes
	@$(BIN)/python -m bench.recovery

bench-failover: $(INSTALLED) ## Measure how long reads wait when one of two workers is killed or stopped; minutes
	@$(BIN)/python -m bench.failover

lint: $(INSTALLED) ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## Mend style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(INSTALLED) ## Write the lock files anew from pyproject.toml; with UPGRADE=--upgrade, newest versions
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --extra dev --constraint requirements.lock --output-file requirements-dev.lock

clean: ## Remove .venv, caches and builds, but not .data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml requirements-dev.lock | $(BIN)/python
	@echo "Installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(BIN)/python:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
		then echo "Making $(VENV) with $$("$$python" -V)"; exec "$$python" -m venv --clear $(VENV); fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 with its venv module found$(if $(PYTHON), as $(PYTHON))." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3-venv), or name it: make install PYTHON=/path/to/python" >&2; \
	exit 1
