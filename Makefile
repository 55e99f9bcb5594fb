# `make serve` and `make test` do all their own set-up; a second run is quick.
# PYTHON chooses the interpreter; FIND_LINKS names a folder of prebuilt wheels, if you have one. WORKERS is how many
# test files run at a time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
WORKERS ?= 2
export FIND_LINKS

.PHONY: setup serve test test-slow lint format types demo benchmarks clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/setup.sh

serve: setup
	$(BIN)/familiar serve $(ARGS)

demo: setup
	$(BIN)/familiar demo $(ARGS)

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

lint: setup types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	mkdir -p build/links/familiar
	for folder in daemon adapters feedback memory; do ln -sfn ../../../$$folder build/links/familiar/$$folder; done
	$(BIN)/mypy

# Hours, most of them for the simulated people, and half an hour more the first time, to build llama.cpp's server.
benchmarks: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	set -e; for name in serving adapters load recall following learning personal; do \
		$(BIN)/python benchmarks/$$name.py --json build/benchmarks/$$name.json $(ARGS); done

clean:
	rm -rf $(VENV) build
