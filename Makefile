# Everything sets itself up: Python 3.11 to 3.13, make and git are enough.
# PYTHON=python3.13 or a path chooses another interpreter, which gets an environment of its own.

VENV := .venv$(if $(PYTHON),-$(shell $(PYTHON) -c 'import platform; print(platform.python_version())'))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
CANDIDATES := $(PYTHON) python3 python3.13 python3.12 python3.11

.DEFAULT_GOAL := help
.PHONY: help install demo demo-faces test test-full test-fuzz test-tpu check docs format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(VENV)/run.stamp ## the program and what it needs, into the environment
	@echo "$(BIN)/qdgs is installed; $(BIN)/qdgs --help says what it does"

demo: $(VENV)/run.stamp ## search, data sets, classifiers and report on the shapes domain
	$(BIN)/qdgs demo

demo-faces: $(VENV)/run.stamp ## search, people, audit, recognition and report on drawn faces
	$(BIN)/qdgs demo faces

test: $(VENV)/dev.stamp ## the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not full and not tpu"

test-full: $(VENV)/dev.stamp ## the tests and the full-size checks
	$(BIN)/python -m pytest -m "not tpu"

test-fuzz: $(VENV)/dev.stamp ## random files for the checkpoint reader, tens of thousands
	$(BIN)/python -m pytest -n auto --dist load --hypothesis-profile=fuzz tests/ports/test_fuzz.py

test-tpu: $(VENV)/tpu.stamp ## ceilings of cycles by the TPU's compiler; no TPU is needed
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m tpu tests/targets

check: $(VENV)/dev.stamp ## lint, format, layers and types (these two of an installed copy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf .make/installed build
	$(PIP) --no-deps --target .make/installed .
	cd .make/installed && PYTHONPATH=. ../../$(BIN)/lint-imports --no-cache --no-logo ../../pyproject.toml
	cd .make/installed && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy -p qdgs_jax

docs: $(VENV)/docs.stamp ## the pages, into .make/site; no warning is let through
	rm -rf .make/installed build
	$(PIP) --no-deps --target .make/installed .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/dev.stamp ## bring the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what this file made
	rm -rf .venv .venv-* .make build *.egg-info

$(VENV)/made.stamp:
	@for python in $(CANDIDATES); do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$python --version)"; \
	    $$python -m venv --clear $(VENV) && touch $@ && exit 0; \
	    echo "$$python cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; \
	  fi; \
	done; \
	echo "Python 3.11, 3.12 or 3.13 is needed; found $$(python3 --version 2>&1). Give one with make PYTHON=..." >&2; exit 1

$(VENV)/run.stamp: $(VENV)/made.stamp pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/made.stamp pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/run.stamp

$(VENV)/tpu.stamp: $(VENV)/dev.stamp
	$(PIP) -e '.[dev,tpu-compiler]'
	@touch $@

$(VENV)/docs.stamp: $(VENV)/dev.stamp
	$(PIP) -e '.[dev,docs]'
	@touch $@
