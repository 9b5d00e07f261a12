# Needs GNU make and Python. All else goes into VENV, from the lock; also a Python, where none of 3.11 to 3.13 is found.
# With a certain one: make install PYTHON=/path/to/python3.12

VENV := .venv
PY := "$(VENV)/bin/python"
LOCK := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links $(UPGRADE)
unexport PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help install run test campaigns test-fast simulate fuzz chaos bench bench-recovery bench-failover bench-history bench-board bench-volume screenshots soak smoke flink legacy numbers kafka-versions lint format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: ## Install into .venv what the lock names; the other targets do so when it is needed
	@VENV="$(VENV)" PYTHON="$(PYTHON)" tools/install

run: install ## Start all of it, Kafka included, with an order every second; Ctrl-C stops it
	@$(PY) -m ecosystem.cli up --rate 1

test: install ## Run all tests except campaigns; the last lines list those left out or skipped, with the reason
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not campaign"

campaigns: install ## Run the tests that take minutes each, which `make test` leaves out: faults at every step, whole days
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m campaign

test-fast: install ## Run the tests that need no broker
	@$(PY) -m pytest tests/unit tests/topology

simulate: install ## Run the core in SEEDS=1000 simulated worlds of each guarantee; a failing one is shown
	@$(PY) -m tests.simulation.run --seeds $(or $(SEEDS),1000)

fuzz: install ## Ask all services what no client would ask for MINUTES=10, from a SEED=; they must answer as documented
	@FUZZ_MINUTES=$(or $(MINUTES),10) $(if $(SEED),FUZZ_SEED=$(SEED)) $(PY) -m pytest tests/contracts/test_openapi.py

chaos: install ## Break workers, brokers, networks, databases and mail under load for MINUTES=10, from a SEED=; exit code 1 if a promise breaks
	@$(PY) -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

bench: install ## Measure rates, latencies and CPU; AGAINST=kafka-streams or restate: beside these; QUICK=1: in three minutes
	@$(PY) -m bench.compare $(if $(AGAINST),--against $(AGAINST)) $(if $(QUICK),--quick) \
		$(if $(GUARANTEE),--guarantee $(GUARANTEE)) $(if $(LAYOUT),--layout $(LAYOUT)) $(BENCH)

bench-history: install ## Measure how fast the history stores records, and bytes per order; ORDERS=50000; minutes
	@$(PY) -m bench.history --orders $(or $(ORDERS),50000)

bench-board: install ## Measure what the board costs the core, and its page at RATE=1000 orders a second for SECONDS=60; minutes
	@$(PY) -m bench.board --rate $(or $(RATE),1000) --seconds $(or $(SECONDS),60)

bench-volume: install ## Measure a worker that holds a million orders beside one that holds ten thousand; a quarter of an hour
	@$(PY) -m bench.volume

screenshots: install ## Take the pictures of the board for the README anew, from a system that runs for a minute
	@$(PY) -m bench.screenshots

soak: install ## Watch memory and handles of a worker under steady load; MINUTES=30 RATE=60
	@$(PY) -m bench.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),60)

bench-recovery: install ## Measure how a worker rebuilds the state of a million orders: time, rate, memory; minutes
	@$(PY) -m bench.recovery

bench-failover: install ## Measure how long reads wait when one of two workers is killed or stopped; minutes
	@$(PY) -m bench.failover

smoke: install ## Check what `docker compose up` runs: orders up to the e-mail, every page; SMOKE="--mail=none" leaves one out
	@$(PY) -m ecosystem.smoke $(SMOKE)

flink: install ## Join a day of ORDERS=1000 by Flink SQL, kill it in between, compare with our own join; about a minute
	@$(PY) -m examples.flink demo --orders $(or $(ORDERS),1000)

legacy: install ## Import two days of a legacy office and keep its frontend database up to date; all is killed in between
	@$(PY) -m examples.legacy demo

numbers: install ## Run the numbers pipeline, the smallest example; NUMBERS_RATE=2 and others tune it; Ctrl-C stops it
	@$(PY) -m examples.numbers_pipeline $(if $(APART),run --apart)

lint: install ## Check style, formatting and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: install ## Mend style and formatting
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

lock: install ## Write the lock files anew from pyproject.toml; with UPGRADE=--upgrade, newest versions
	$(PY) -m pip install --quiet --require-hashes --requirement tools/uv.lock
	echo uv | $(LOCK) - --output-file tools/uv.lock
	$(LOCK) pyproject.toml --extra traces --output-file requirements.lock
	$(LOCK) pyproject.toml --extra dev --constraint requirements.lock --output-file requirements-dev.lock

kafka-versions: install ## Run a short test of the core on several versions of Kafka, fetched from Maven Central; VERSIONS="3.9.2 4.4.0"; minutes
	@$(PY) -m tests.kafka_versions $(VERSIONS)

clean: ## Remove .venv, .uv, caches and builds, but not .data
	rm -rf "$(VENV)" .uv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
