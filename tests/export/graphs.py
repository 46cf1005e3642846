"""Small ONNX networks built by hand, and images to measure their ranges on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeml import ModelSpec, Preprocess
from edgeml.runtimes.onnx_file import write_onnx
from edgeml_export.int8.calibration import Calibration

SIDE = 16
"""Side of the images, and of the networks' inputs, in pixels."""

SPEC = ModelSpec(labels=("a", "b"), thresholds=(0.5, 0.5), preprocess=Preprocess(size=(SIDE, SIDE)))

Output = str | Sequence[str]
Node = tuple[str, Sequence[str], Output] | tuple[str, Sequence[str], Output, Mapping[str, Any]]
"""Operator, names of its inputs, name of its output or outputs, and other attributes."""


def model_of(
    nodes: Sequence[Node],
    constants: Mapping[str, Any],
    *,
    output: str = "logits",
    dtype: int = TensorProto.FLOAT,
    shape: Sequence[int | str] = ("N", 3, SIDE, SIDE),
    opset: int = 18,
) -> onnx.ModelProto:
    """Build a network from `input` to one output; nodes are named after their outputs."""
    protos = []
    for kind, inputs, out, *more in nodes:
        outputs = [out] if isinstance(out, str) else list(out)
        attributes = {"name": f"{outputs[0]}_node", **dict(*more)}
        protos.append(helper.make_node(kind, list(inputs), outputs, **attributes))
    graph = helper.make_graph(
        protos,
        "network",
        [helper.make_tensor_value_info("input", dtype, list(shape))],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    # The types and shapes of outputs are left to inference.
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    del inferred.graph.value_info[:]
    return inferred


def written(model: onnx.ModelProto, path: Path, spec: ModelSpec = SPEC) -> Path:
    """Write a network with a spec inside."""
    write_onnx(model, path, spec)
    return path


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return weights under which values neither grow nor shrink much."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)


def photos(folder: Path, count: int = 12, seed: int = 0, detail: int = 4) -> Calibration:
    """Paint smooth images of random colours; with a `detail` of 1 each is of one colour."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        ground = rng.integers(0, 256, (detail, detail, 3), np.uint8)
        paths.append(folder / f"{number:02}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(ground, (SIDE, SIDE)))
    hashes = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return Calibration(paths=tuple(paths), hashes=hashes)


def inputs_of(calibration: Calibration, spec: ModelSpec = SPEC) -> NDArray[Any]:
    """Return all images of a calibration as one input of the network."""
    batches = calibration.batches(spec, size=1, advance=lambda done: None)
    return np.concatenate(list(batches))


def run(
    model: onnx.ModelProto | Path,
    batch: NDArray[Any],
    *outputs: str,
    optimized: bool = True,
) -> list[NDArray[Any]]:
    """Run a network in ONNX Runtime; return the named tensors, or its output."""
    proto = onnx.load(model) if isinstance(model, Path) else model
    if outputs:
        probed = onnx.ModelProto()
        probed.CopyFrom(proto)
        known = {value.name for value in proto.graph.output}
        probed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in outputs if n not in known)
        proto = probed
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Without VNNI, ONNX Runtime's default adds products of integers in 16 bits, and saturates.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    tensors: list[NDArray[Any]] = session.run(
        list(outputs) or None, {session.get_inputs()[0].name: batch}
    )
    return tensors


def executed(path: Path, folder: Path) -> onnx.ModelProto:
    """Return the network that ONNX Runtime makes of a file."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")
