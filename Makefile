# make demo   the whole road on this machine, in minutes     make test   the tests
# make lint   style, types, and the wall                     make bench  latency of the demo's models
# make wheel  the wheel works alone, in an empty environment  make nightly  the slow tests

PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo
ARGS ?=

.PHONY: demo test nightly wheel lint format bench install

demo: install
	$(BIN)/edgeml demo --out $(OUT) $(ARGS)

test: install
	$(BIN)/python -m pytest

nightly: install
	$(BIN)/python -m pytest -m nightly

wheel: install
	$(BIN)/python -m pytest -m wheel

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/edgeml bench $(OUT)/run/*.onnx $(OUT)/run/*.xml --out $(OUT)/bench

install: .venv/installed

# pip learnt dependency groups in 25.1; older ones come with Python 3.11.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	touch $@
