# make demo   the whole road on this machine, in minutes     make test   the tests
# make lint   style, types, and the wall                     make bench  latency of the demo's models
# make wheel  the wheel works alone, in an empty environment  make nightly  the slow tests
# make opencv4  images, preprocessing and prediction with the oldest OpenCV that is allowed

PYTHON ?= python3
BIN := .venv/bin
OPENCV4 ?= 4.13.0.92
OUT ?= demo
ARGS ?=

.PHONY: demo test opencv4 nightly wheel lint format bench install

demo: install
	$(BIN)/edgeml demo --out $(OUT) $(ARGS)

test: install
	$(BIN)/python -m pytest

# Installed beside the other, where only this target and tests/image/test_opencv_versions.py look.
opencv4: build/opencv4/installed
	PYTHONPATH=build/opencv4 $(BIN)/python -m pytest tests/image tests/predict

build/opencv4/installed: .venv/installed pyproject.toml
	rm -rf build/opencv4
	$(BIN)/python -m pip install --quiet --no-deps --target build/opencv4 \
		opencv-python-headless==$(OPENCV4)
	touch $@

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
