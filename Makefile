# Everything runs in .venv, which `make setup` makes.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
# One process a core; beyond eight, each has too little to do. Hundreds of child processes import the package: each
# would compile its sources where the environment forbids bytecode files.
PYTEST = env --unset=PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest tests --numprocesses $(shell nproc) --maxprocesses 8 --dist worksteal --durations 15
NATIVE := $(wildcard cmake/CMakeLists.txt cmake/*/CMakeLists.txt cmake/*/*.cc cmake/*/*.h)
CXX_SOURCES := $(filter %.cc %.h,$(NATIVE))

.PHONY: setup demo demo-cluster demo-exits demo-search test test-full lint format contribute bench clean

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

# Two nodes on this machine; Ray is an optional part.
demo-cluster: setup
	$(BIN)/python -m pip install --quiet --editable '.[cluster]'
	$(BIN)/layoutsel cluster demo

# A network with several exits, trained here; PyTorch is an optional part.
demo-exits: setup
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	$(BIN)/layoutsel exits demo

# Networks that are searched together with their division over two nodes, trained here.
demo-search: setup
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	$(BIN)/layoutsel search demo

# At most ten minutes on two cores with nothing else running.
test: setup
	$(PYTEST) -m "not nightly"

# Everything: other seeds, examples, exporters and networks, long measurements.
test-full: setup
	LAYOUTSEL_TEST_TIER=full $(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

# A log of this machine for the cost model, while nothing else runs; commit it, and train again.
contribute: setup
	$(BIN)/layoutsel profile --contribute data --budget 20m

bench: setup
	$(BIN)/python -m pytest bench --benchmark-only

clean:
	rm -rf build dist $(STAMP)
