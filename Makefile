# The front door. Needs Python 3.11 with venv, make and g++; everything else is fetched, built and cached by `make setup`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv/bin
STACK := $(VENV)/python -m deploy.local
PORTS := $(if $(PORT_BASE),--port-base $(PORT_BASE))
SLOTS := $(if $(NODE_SLOTS),--node-slots $(NODE_SLOTS))

.DEFAULT_GOAL := help

.PHONY: help
help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: up ## From nothing to a gRPC prediction: the walk-through on real Kafka, MinIO and TensorFlow
	@$(VENV)/python examples/mnist/demo.py --config .trainyard

.PHONY: setup
setup: ## Everything but the run: .venv, Kafka, MinIO, generated code
	@$(PYTHON) deploy/local/bootstrap.py requirements/platform.txt
	@$(STACK) setup

.PHONY: up
up: setup ## Start Kafka, MinIO and the services (PORT_BASE=18400, NODE_SLOTS=8)
	@$(STACK) up $(PORTS) $(SLOTS)

.PHONY: down
down: ## Stop all of it; state stays in .trainyard
	@if [ -x $(VENV)/python ]; then $(STACK) down; else echo "Nothing is set up here."; fi

.PHONY: status
status: ## What runs, where, and is it ready
	@$(STACK) status

.PHONY: setup-dev
setup-dev: setup ## setup, and the tools for tests and lint
	@$(PYTHON) deploy/local/bootstrap.py requirements/dev.txt

.PHONY: test
test: setup-dev test-packages ## The whole suite, real Kafka, MinIO, TensorFlow and PostgreSQL included (TESTS=tests/unit for a part)
	@$(VENV)/python -m pytest $(or $(TESTS),tests) $(PYTEST_ARGS)

# From the distribution, which only root may ask; where they are missing the tests that need them are skipped, and say so.
PACKAGES := postgresql libfuse3-3 openssh-server nghttp2-client iproute2 libb64-0d

.PHONY: test-packages
test-packages:
	@[ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || dpkg -s $(PACKAGES) >/dev/null 2>&1 \
	  || (apt-get update -q && apt-get install -y -q --no-install-recommends $(PACKAGES)) || echo "$(PACKAGES) could not be installed; tests are skipped."

.PHONY: lint
lint: setup-dev ## ruff, mypy and import-linter
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy services sdk/trainyard deploy
	@$(VENV)/lint-imports

.PHONY: protos
protos: setup ## Generate code from protos/, and docs/events.md
	@$(STACK) events

.PHONY: docs
docs: setup ## The site with the reference, into site/ (no network needed to read it)
	@$(VENV)/python -m deploy.docs

.PHONY: bench
bench: setup-dev up ## Every figure that the project quotes, side by side
	@$(VENV)/python -m benchmarks

.PHONY: clean
clean: down ## Forget the local stack's state and .venv; the cache of built parts stays
	@rm -rf .trainyard .venv
