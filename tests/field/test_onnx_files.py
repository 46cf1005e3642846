"""ONNX files of any origin are read in one form, and exported like files of edgeml's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.external_data_helper import set_external_data

from edgeml.data import Dataset
from edgeml.errors import EdgemlError, ModelLoadError
from edgeml.runtimes.onnx_file import read_onnx
from edgeml_export import export
from tests.export.graphs import SIDE, run
from tests.field.nets import (
    CONSTANTS,
    NODES,
    plain_network,
    stored,
    values_of,
    with_initializers_as_inputs,
)

pytestmark = [pytest.mark.runtime, pytest.mark.usefixtures("untimed")]

WIDE = {"max_drop": 100.0, "max_label_drop": 100.0, "minutes": 0.1}
BATCH = np.random.default_rng(0).normal(0, 1, (2, 3, SIDE, SIDE)).astype(np.float32)


def with_external_data(path: Path, location: str = "model.onnx.data") -> Path:
    """Write a model whose weights are in another file, next to it."""
    model, content = plain_network(), b""
    for tensor in model.graph.initializer:
        set_external_data(tensor, location, offset=len(content), length=len(tensor.raw_data))
        content += tensor.raw_data
        tensor.ClearField("raw_data")
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / Path(location).name).write_bytes(content)
    return stored(model, path)


def with_function(path: Path) -> Path:
    """Write a model whose ReLUs are in a function of the file's own."""
    nodes = [(("Block" if node[0] == "Relu" else node[0]), *node[1:]) for node in NODES]
    block = helper.make_function(
        "own", "Block", ["X"], ["Y"], [helper.make_node("Relu", ["X"], ["Y"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model = plain_network()
    for node, (kind, *_) in zip(model.graph.node, nodes, strict=True):
        if kind == "Block":
            node.op_type, node.domain = kind, "own"
    model.functions.append(block)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return stored(model, path)


def test_weights_in_another_file_are_read(tmp_path: Path) -> None:
    read = values_of(read_onnx(with_external_data(tmp_path / "model.onnx")))
    assert read.keys() == CONSTANTS.keys()
    assert all(np.array_equal(read[name], CONSTANTS[name]) for name in CONSTANTS)


def test_a_model_with_weights_in_another_file_is_exported_as_one_file(
    tmp_path: Path, data: Dataset
) -> None:
    source = with_external_data(tmp_path / "model.onnx")
    done = export(source, "onnx", precision="fp16", check=data, out=tmp_path / "out" / "half.onnx")
    assert sorted(path.suffix for path in done.path.parent.iterdir()) == [".html", ".onnx"]
    assert not any(each.external_data for each in onnx.load(done.path).graph.initializer)


def test_links_of_a_cache_are_followed_to_the_model_s_real_folder(tmp_path: Path) -> None:
    with_external_data(tmp_path / "blobs" / "model.onnx")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).symlink_to(os.path.relpath(tmp_path / "blobs" / name, folder))
    assert np.array_equal(values_of(read_onnx(folder / "model.onnx"))["w3"], CONSTANTS["w3"])


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/hostname", "linked", "none"])
def test_weights_outside_the_model_s_folder_are_refused(location: str, tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "in" / "model.onnx", location)
    (tmp_path / "in" / Path(location).name).rename(tmp_path / "model.onnx.data")
    if location == "linked":
        (tmp_path / "in" / "linked").symlink_to(tmp_path / "model.onnx.data")
    with pytest.raises(ModelLoadError, match="model"):
        read_onnx(path)


def test_a_file_of_weights_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "model.onnx")
    weights = tmp_path / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ModelLoadError, match="not complete"):
        read_onnx(path)


def test_functions_are_put_in_line(tmp_path: Path) -> None:
    path = with_function(tmp_path / "model.onnx")
    model = read_onnx(path)
    assert [node.op_type for node in model.graph.node] == [node[0] for node in NODES]
    assert not model.functions
    assert {each.domain for each in model.opset_import} == {""}
    assert np.array_equal(run(model, BATCH)[0], run(path, BATCH)[0])


@pytest.mark.parametrize(("fmt", "suffix"), [("onnx", "onnx"), ("openvino", "xml")])
def test_a_model_with_functions_is_exported(
    fmt: str, suffix: str, tmp_path: Path, data: Dataset
) -> None:
    source, out = with_function(tmp_path / "model.onnx"), tmp_path / f"out.{suffix}"
    done = export(source, fmt, precision="int8", calib=data, check=data, out=out, **WIDE,
                  allow_overlap=True)  # fmt: skip
    assert done.checks is not None
    assert done.checks.passed


@pytest.mark.parametrize("opset", [9, 11, 12])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_file_of_an_old_version_is_exported(
    opset: int, precision: str, tmp_path: Path, data: Dataset
) -> None:
    old = with_initializers_as_inputs(plain_network(opset=opset))
    source = stored(old, tmp_path / "old.onnx")
    options = {"calib": data, **WIDE} if precision == "int8" else {}
    done = export(source, "onnx", precision=precision, check=data, out=tmp_path / "new.onnx",
                  allow_overlap=True, **options)  # fmt: skip
    model = onnx.load(done.path)
    assert [value.name for value in model.graph.input] == ["input"]
    onnx.checker.check_model(model, full_check=True)
    assert done.checks is not None
    assert done.checks.passed


def test_reading_an_old_file_changes_no_value(tmp_path: Path) -> None:
    old = with_initializers_as_inputs(plain_network(opset=9))
    path = stored(old, tmp_path / "old.onnx")
    assert np.array_equal(run(read_onnx(path), BATCH)[0], run(path, BATCH)[0])


def test_an_error_names_the_file_that_was_given(tmp_path: Path) -> None:
    model = plain_network()
    model.graph.node[1].op_type = "NonZero"
    source = stored(model, tmp_path / "mine.onnx")
    with pytest.raises(EdgemlError, match="mine"):
        export(source, "openvino", out=tmp_path / "out.xml")
