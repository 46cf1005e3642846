"""What the package promises in its metadata."""

from __future__ import annotations

import re

import pytest

import edgeml
from tests.conftest import ROOT


def test_every_extra_that_a_message_names_exists() -> None:
    sources = [*(ROOT / "edgeml").rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    text = "".join(file.read_text("utf-8") for file in sources)
    named = set(re.findall(r'extra="([\w-]+)"', text))
    named |= set(re.findall(r"edgeml\[([\w-]+)\]", text))
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    declared = set(project["project"]["optional-dependencies"])
    assert named
    assert named <= declared


def test_the_public_names_are_these_and_no_others() -> None:
    assert edgeml.__all__ == [
        "EdgemlError", "LabelGroup", "ModelSpec", "Prediction", "Predictor", "Preprocess",
    ]  # fmt: skip


def test_the_compiler_that_the_tests_build_engines_with_is_what_users_get() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extra = {
        re.split("[<>=;]", item)[0]
        for item in project["project"]["optional-dependencies"]["trt-rtx"]
    }
    group = {
        re.split(";", item)[0]
        for item in project["dependency-groups"]["test"]
        if isinstance(item, str)
    }
    theirs = {"tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu13_libs", "cuda-bindings"}
    assert theirs == extra & group


def test_every_dependency_is_pinned_by_the_constraints() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lists = [
        project["project"]["dependencies"],
        *(v for k, v in project["project"]["optional-dependencies"].items() if k not in NOT_HERE),
        *project["dependency-groups"].values(),
    ]
    wanted = {
        re.split(r"[\[<>=;~ ]", item)[0].lower().replace("_", "-")
        for items in lists
        for item in items
        if isinstance(item, str)
    } - {"edgeml"}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    assert wanted <= pinned


# Extras for machines with an NVIDIA GPU, which the constraints were not made on.
NOT_HERE = ("gpu", "trt")


def test_the_constraints_name_no_index_and_no_path() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 50
    assert all(
        re.fullmatch(r'[\w.-]+==[\w.+!]+(; python_version (<|>=) "3.11")?', pin) for pin in pins
    )
