# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
ENV ?= local
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help
help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.installed node_modules/.installed ## Install everything into this checkout

.venv/.installed: requirements/bootstrap.txt requirements/workstation.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@echo "Installing Python packages into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip install --quiet --require-hashes -r requirements/workstation.txt
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

node_modules/.installed: package-lock.json .venv/.installed
	@echo "Installing the CDK command line into node_modules"
	@$(BIN)/npm ci --silent --no-audit --no-fund
	@touch $@

.PHONY: lock
lock: ## Recompile every requirements file with hashes
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --extra dev -o requirements/workstation.txt
	grep -A100 '^uv==' requirements/workstation.txt | awk 'NR==1||/^    --hash/{print;next}{exit}' | sed '$$s/ \\$$//' > requirements/bootstrap.txt
