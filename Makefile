# Everything runs in .venv, which `make setup` makes.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
NATIVE := $(wildcard cmake/CMakeLists.txt cmake/*/CMakeLists.txt cmake/*/*.cc cmake/*/*.h)
CXX_SOURCES := $(filter %.cc %.h,$(NATIVE))

.PHONY: setup demo test lint format bench clean

setup: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Again whenever the metadata or the native sources change; Python sources are used in place.
$(STAMP): pyproject.toml $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[bench,dev]'
	touch $@

demo: setup
	$(BIN)/layoutsel demo

test: setup
	$(BIN)/python -m pytest tests --numprocesses 2 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: setup
	$(BIN)/python -m pytest bench --benchmark-only

clean:
	rm -rf build dist $(STAMP)
