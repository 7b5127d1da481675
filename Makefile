# What people do daily. Each target sets up what it needs in .venv; PYTHON=... picks the interpreter.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
INSTALLED := $(VENV)/installed

.PHONY: demo test test-fast test-slow lint format bench constraints clean

demo: $(INSTALLED) ## sample archives, converted, opened with TFDS
	rm -rf $(DEMO)
	$(BIN)/python -m beam_imagenet sample --out=$(DEMO)/archives
	$(BIN)/python -m beam_imagenet --manual_dir=$(DEMO)/archives --data_dir=$(DEMO)/data
	$(BIN)/python examples/read_with_tfds.py $(DEMO)/data

test: $(INSTALLED) ## every test
	$(BIN)/python -m pytest

test-fast: $(INSTALLED) ## without those that take long or run TFDS
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED) ## only those
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED) ## the gates of a commit and of CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## against TFDS and cp; see benchmarks/README.md
	$(BIN)/python benchmarks/compare.py --json benchmark.json

# The versions that were tested together: what a fresh environment resolves setup.py to.
constraints:
	rm -rf $(VENV)-constraints
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/pip install --quiet '.[tensorflow,dev]'
	$(VENV)-constraints/bin/pip freeze --exclude beam_imagenet --exclude beam-imagenet > deploy/constraints.txt
	rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info

$(INSTALLED): setup.py deploy/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint deploy/constraints.txt --editable '.[tensorflow,dev]'
	touch $@
