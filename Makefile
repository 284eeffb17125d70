# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
ENV ?= local
PYTHON ?= python3
BIN := .venv/bin
# As pip and uv: trust what the system trusts, a company's own certificate authority for one.
export NODE_USE_SYSTEM_CA := 1
# What one process has compiled, the next one reads: hundreds start, and most import more than they run.
unexport PYTHONDONTWRITEBYTECODE
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

# Environments of their own: Checkov pins what we pin otherwise, others' clients, Amazon's SDK and what trains models are heavy.
OWN := checkov clients training sagemaker
$(OWN:%=build/%/.installed): build/%/.installed: requirements/%.txt .venv/.installed
	@echo "Installing requirements/$*.txt into build/$*"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/$*
	@VIRTUAL_ENV=build/$* $(BIN)/uv pip install --quiet --require-hashes -r requirements/$*.txt
	@touch $@

.PHONY: checkov
checkov: build/checkov/.installed ## Install Checkov, which the tests run, into an environment of its own

.PHONY: train
train: build/training/.installed ## Train the models that are trained here, anew
	@for script in models/*/train.py; do build/training/bin/python $$script; done

# uv compiles for every platform and Python at once; huggingface-hub is left out (lambda_src/inference/overrides.txt).
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
LOCK_RUNTIME := $(LOCK) --no-annotate --override lambda_src/inference/overrides.txt -c requirements/workstation.txt

.PHONY: lock
lock: ## Recompile every requirements file, with hashes
	$(LOCK) pyproject.toml --extra dev -o requirements/workstation.txt
	grep -A100 '^uv==' requirements/workstation.txt | awk 'NR==1||/^    --hash/{print;next}{exit}' | sed '$$s/ \\$$//' > requirements/bootstrap.txt
	$(LOCK_RUNTIME) lambda_src/inference/requirements.in -o lambda_src/inference/requirements.txt
	$(LOCK_RUNTIME) lambda_src/drift/requirements.in -o lambda_src/drift/requirements.txt
	$(LOCK_RUNTIME) inference_containers/onnx/requirements-cpu.in -o inference_containers/onnx/requirements-cpu.txt
	$(LOCK_RUNTIME) inference_containers/onnx/requirements-cuda.in -o inference_containers/onnx/requirements-cuda.txt
	$(LOCK_RUNTIME) inference_containers/onnx/requirements-compile.in -o inference_containers/onnx/requirements-compile.txt
	$(LOCK) --no-deps models/requirements.in -o models/requirements.txt
	$(LOCK) --no-annotate requirements/checkov.in -o requirements/checkov.txt
	$(LOCK) --no-annotate requirements/clients.in -o requirements/clients.txt
	$(LOCK) --no-annotate requirements/sagemaker.in -o requirements/sagemaker.txt
	$(LOCK) --no-annotate -c requirements/workstation.txt requirements/training.in -o requirements/training.txt
	for peer in benchmarks/peers/*/; do $(LOCK) --no-annotate $${peer}requirements.in -o $${peer}requirements.txt; done

.PHONY: demo
demo: setup ## Deploy to an embedded AWS, send real requests, print the answers, leave nothing running
	@$(BIN)/inferctl demo

.PHONY: up
up: setup ## The same deployment, left running
	@$(BIN)/inferctl up

.PHONY: down
down: setup ## Stop what `make up` started
	@$(BIN)/inferctl down

.PHONY: build
build: setup ## Build the models' artifacts
	@$(BIN)/python models/build.py

.PHONY: synth
synth: setup ## Write cdk.out/$ENV (ENV=local|dev|prod): no credentials, no Docker
	@$(BIN)/python -c 'import os, shutil; shutil.rmtree("cdk.out/$(ENV)", ignore_errors=True)'
	@cdk synth --quiet --context env=$(ENV) --output cdk.out/$(ENV)
	@echo "cdk.out/$(ENV)"

.PHONY: diff
diff: setup ## Rate what cdk.out/$ENV would change (AGAINST=<folder|ref>; default: what is deployed)
	@$(BIN)/inferctl --env $(ENV) diff --assembly cdk.out/$(ENV) $(if $(AGAINST),--against $(AGAINST)) $(FORM)

.PHONY: deploy
deploy: setup ## Deploy cdk.out/$ENV to its AWS account
	@cdk deploy --all --app cdk.out/$(ENV) --require-approval never

.PHONY: baselines
baselines: setup ## Record every environment's templates, which the next diff is compared with
	@for config in config/*.yaml; do \
	  env=$$(basename $$config .yaml); \
	  if [ $$env != local ]; then $(BIN)/inferctl --env $$env baseline; fi; \
	done

# Where the modules of the function that compares captures are found.
DRIFT_PATH := lambda_src/common:lambda_src/drift

.PHONY: lint
lint: setup ## Formatting, lint and types
	@ruff format --check .
	@ruff check .
	@mypy
	@# What has modules of the same names is checked by itself: this function, and each model's folder.
	@MYPYPATH=$(DRIFT_PATH) mypy lambda_src/drift/*.py benchmarks/drift.py
	@for model in models/*/; do mypy --no-error-summary "$$model"; done

.PHONY: test
test: setup checkov ## Run every test
	@$(BIN)/pytest -n logical --dist loadscope --no-loadscope-reorder

.PHONY: test-changes
test-changes: setup ## Deploy one catalog over another, every option, and a model that sleeps (minutes; not part of `make test`)
	@$(BIN)/pytest -m changes tests/integration/platform/changes

.PHONY: gpu-test
gpu-test: setup ## On a machine with an NVIDIA GPU: the same answers from it (installs onnxruntime-gpu into .venv)
	@$(BIN)/python -m uv pip install --quiet --require-hashes -r inference_containers/onnx/requirements-cuda.txt
	@$(BIN)/pytest -m gpu tests/gpu

.PHONY: conformance
conformance: setup build/clients/.installed ## Let tritonclient and the KServe client ask the server and the platform
	@$(BIN)/pytest -m conformance tests/conformance

.PHONY: registry-test
registry-test: setup build/sagemaker/.installed ## Let the SageMaker SDK register, approve and invoke a version (installs hundreds of MB)
	@$(BIN)/pytest -m registry tests/registry

.PHONY: fuzz
fuzz: setup ## Damage requests for a minute, and see them read or refused (ARGS="--help")
	@$(BIN)/python -m tests.unit.runtime.codec_fuzz $(ARGS)

.PHONY: image-test
image-test: setup ## Build the container's image without Docker and try it (DEVICE=cpu|cuda; root, buildah, debootstrap)
	@DEVICE=$(or $(DEVICE),cpu) $(BIN)/pytest -m image tests/image

.PHONY: compiled
compiled: setup ## Compile the inference server as its image has it; `inferctl serve` then runs that (needs gcc)
	@$(BIN)/python -m inference_containers.onnx.compilation build/server

.PHONY: bench
bench: setup ## Measure the inference server beside ONNX Runtime and other servers (QUICK=1; ARGS="--help")
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-drift
bench-drift: setup build/training/.installed ## Measure false alarms and power of drift detection on real data (minutes)
	@PYTHONPATH=$(DRIFT_PATH) build/training/bin/python -m benchmarks.drift $(ARGS)

.PHONY: check
check: setup ## What CI runs
	@# Types take one core. The other fetches meanwhile what the tests would wait for.
	@$(MAKE) --no-print-directory --jobs 2 lint checkov build build/training/.installed
	@$(MAKE) --no-print-directory test
