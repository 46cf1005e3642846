# make demo   all of edgeml on this machine, in minutes     make quick    the light tests, in a minute
# make lint   style, types, layers between packages          make test     all tests that CI runs
# make bench  latency of the demo's models                   make nightly  the slow tests
# make wheel  the wheel in an empty environment              make pythons  the light tests on 3.10, 3.12, 3.13
# make opencv4  images, preprocessing and prediction with the oldest supported OpenCV

PYTHON ?= python3
BIN := .venv/bin
OPENCV4 ?= 4.13.0.92
OUT ?= demo
ARGS ?=

# One process a core, each with one thread: threads of several libraries only wait for each other.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest
ALL_CORES := --numprocesses auto --dist worksteal

.PHONY: demo quick test opencv4 pythons nightly wheel lint format bench install

demo: install
	$(BIN)/edgeml demo --out $(OUT) $(ARGS)

quick: install
	EDGEML_TESTS=light $(PYTEST) $(ALL_CORES) -q -rfE

test: install
	$(PYTEST) $(ALL_CORES)

pythons:
	.ci/pythons

# Installed beside the other, where only this target and tests/image/test_opencv_versions.py look.
opencv4: build/opencv4/installed
	PYTHONPATH=build/opencv4 $(PYTEST) $(ALL_CORES) tests/image tests/predict/test_predictor.py

build/opencv4/installed: .venv/installed pyproject.toml
	rm -rf build/opencv4
	$(BIN)/python -m pip install --quiet --no-deps --target build/opencv4 \
		opencv-python-headless==$(OPENCV4)
	touch $@

nightly: install
	$(PYTEST) -m nightly

wheel: install
	$(PYTEST) -m wheel

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
