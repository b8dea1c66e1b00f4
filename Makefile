# HybridJobs. `make demo` shows it; `make test` proves it; `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed-$(shell cat requirements-dev.txt pyproject.toml 2>/dev/null | sha256sum | cut -c1-12)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) tests/recorded/node_modules/.installed tests/conformance/node_modules/.installed tests/conformance/inngest/node_modules/.installed ## Install what everything below needs, into .venv

$(STAMP): requirements-dev.txt pyproject.toml
	@echo "setup: Python packages into $(VENV) (about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@# The lock is complete, so nothing is left for pip to resolve.
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

tests/recorded/node_modules/.installed: $(STAMP) tests/recorded/package-lock.json
	@echo "setup: recorded GitHub data"
	@$(PY) -m tests.recorded setup
	@touch $@

tests/conformance/node_modules/.installed: $(STAMP) tests/conformance/package-lock.json
	@echo "setup: senders of webhooks"
	@$(PY) -m tests.conformance
	@touch $@

tests/conformance/inngest/node_modules/.installed: $(STAMP) tests/conformance/inngest/package-lock.json
	@echo "setup: Inngest's JavaScript SDK"
	@$(PY) -m tests.conformance.inngest
	@touch $@

.PHONY: cluster cluster-down image kueue tools
cluster: setup ## A Kubernetes cluster: the one KUBECONFIG names, else kind, else a native one
	@$(PY) -m tests.cluster up

cluster-down: setup ## Remove the cluster that `make cluster` made
	@$(PY) -m tests.cluster down

image: cluster ## Build the image and load it into the cluster
	@$(PY) -m tests.cluster image

kueue: cluster ## Build Kueue and load its image, for the end-to-end tests
	@$(PY) -m tests.cluster kueue

tools: setup ## Find or build kubectl, helm and promtool: what tests without a cluster need
	@$(PY) -m tests.cluster tools

.PHONY: demo demo-down
demo: image ## Everything up, and a real webhook's job run to its end
	@$(PY) -m tests.demo

demo-down: setup ## Remove what `make demo` installed
	@$(PY) -m tests.demo --down

.PHONY: test test-fast lint
test: image kueue tools lint ## Every test: lint, unit, integration, end to end
	@$(PY) -m pytest --numprocesses 2 tests

test-fast: tools lint ## Without the cluster: lint, unit, integration
	@$(PY) -m pytest --numprocesses 2 tests/unit tests/integration tests/conformance tests/simulation --ignore tests/integration/access --ignore tests/integration/controller --ignore tests/integration/crds --ignore tests/integration/dispatch

STEPS ?= 1000000
.PHONY: simulate
simulate: setup ## The controller through STEPS=1000000 steps of events, losses and kills in random order
	@$(PY) -m tests.simulation --steps $(STEPS)

.PHONY: chaos
chaos: image ## Ten minutes of jobs while everything is killed, from a seed (CHAOS="--seed 7 --jobs 300")
	@$(PY) -m tests.chaos $(CHAOS)

lint: setup ## ruff, mypy --strict, import-linter
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

.PHONY: lock manifests
lock: setup ## Write requirements*.txt anew from pyproject.toml
	@$(PY) -m pip install --quiet uv
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra embedded --extra otel pyproject.toml -o requirements.txt
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra embedded --extra otel --group dev -c requirements.txt pyproject.toml -o requirements-dev.txt
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header bench/requirements-peers.in -o bench/requirements-peers.txt

manifests: setup ## Make manifests/ anew from the chart
	@$(PY) -m tests.unit.chart.render

.PHONY: openapi
openapi: setup ## The API's OpenAPI document, on standard output
	@$(PY) -m hybridjobs.ingress.api

.PHONY: bench-ingest bench-queue bench-plans bench-latency bench-capture bench-scale bench-controller
bench-ingest: setup ## Accepted webhooks a second, against an endpoint that does nothing
	@$(PY) -m bench.ingest

bench-queue: setup ## Enqueue, claim and complete a second, against procrastinate, pgqueuer and plain commits
	@$(PY) -m bench.queue

bench-plans: setup ## The plans of the hot statements with a million queued, a million blocked, ten million over
	@HYBRIDJOBS_TEST_PLANS=full $(PY) -m pytest --postgres-on-disk tests/integration/store/test_plans.py

bench-latency: image ## From 202 to a started container, against a bare Job
	@$(PY) -m bench.latency

bench-capture: setup ## Rows a second of captures against COPY, a worker's memory, requests over the fewest
	@$(PY) -m bench.capture

bench-scale: setup ## 5,000 pull requests captured with kills, limits and trouble: every row, the fewest requests
	@HYBRIDJOBS_TEST_SCALE=full $(PY) -m pytest tests/integration/handlers/scale

bench-controller: image ## Writes a job, row after condition, the operator's memory beside 10,000 jobs, a sweep of 100,000 rows
	@$(PY) -m bench.controller
