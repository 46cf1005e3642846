"""What INT8 needs to know about activations: measured once on images, stored as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import CalibrationError
from edgeml.files import write_text
from edgeml.progress import SILENT, Progress
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.runtimes.onnx_graph import Graph
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.calibration import Calibration
from edgeml_export.int8.histogram import METHODS, Histogram, Method, Range
from edgeml_export.int8.layers import CLAMP_OPS, quantizable
from edgeml_export.probe import Probe

if TYPE_CHECKING:
    import onnx

FORMAT = "edgeml.ranges/1"

Channels = tuple[str, int]
"""A tensor's name, and which of its axes counts channels."""

# The errors that JSON of another kind causes.
_MALFORMED = ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError

# Histograms sample each batch, so the size of a batch is part of the result.
_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges of a network's tensors by each method, and means of the inputs of layers.

    Attributes:
        network_sha256: Digest of the network, its preprocessing, and the names of the tensors.
        calibration_sha256: Digest of the images; the same two digests, the same ranges.
        images: How many.
        tensors: By name and method.
        means: (channels,) float32 by name and axis of the channels.
    """

    network_sha256: str
    calibration_sha256: str
    images: int
    tensors: Mapping[str, Mapping[Method, Range]]
    means: Mapping[Channels, NDArray[np.float32]]

    def by(self, method: Method) -> dict[str, Range]:
        """Return each tensor's range by one method."""
        return {name: ranges[method] for name, ranges in self.tensors.items()}

    def to_json(self) -> str:
        """Write them as JSON, a line each tensor."""
        head = {
            "format": FORMAT,
            "network_sha256": self.network_sha256,
            "calibration_sha256": self.calibration_sha256,
            "images": self.images,
        }
        ranges = {name: dict(methods) for name, methods in self.tensors.items()}
        means = {
            f"{name}:{axis}": [float(f"{value:.6g}") for value in values]
            for (name, axis), values in self.means.items()
        }
        return (
            f"{json.dumps(head)[:-1]},\n{_lines('tensors', ranges)},\n{_lines('means', means)}}}\n"
        )

    @classmethod
    def from_json(cls, text: str) -> Ranges:
        """Read the JSON that `to_json` wrote.

        Raises:
            CalibrationError: It is something else.
        """
        try:
            fields = json.loads(text)
            if fields["format"] != FORMAT:
                raise ValueError(fields["format"])
            return cls(
                network_sha256=str(fields["network_sha256"]),
                calibration_sha256=str(fields["calibration_sha256"]),
                images=int(fields["images"]),
                tensors={
                    str(name): {method: _range(ranges[method]) for method in METHODS}
                    for name, ranges in fields["tensors"].items()
                },
                means={_channels(key): _means(values) for key, values in fields["means"].items()},
            )
        except _MALFORMED as err:
            raise CalibrationError(f"These are not ranges that edgeml wrote: {err!r}.") from err


def measure_ranges(
    source: Path,
    calibration: Calibration | None,
    *,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Ranges:
    """Measure the ranges that `int8_from_onnx` needs, for every target at once.

    Args:
        source: An FP32 .onnx.
        calibration: Images like those that the model will see; None takes the stored ranges, of
            any images.
        cache: A .json file: its ranges are used if they fit, and new ones are stored there.
        progress: Shows the work.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        CalibrationError: There are no images and no stored ranges that fit, an image cannot be
            read, or the model is not finite on one.
        ExportError: ONNX Runtime cannot run the network.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    chosen = set(quantizable(model, "x86")) | set(quantizable(model, "openvino"))
    graph = Graph.of(model)
    nodes = [node for node in model.graph.node if node.name in chosen]
    outputs = {node.output[0] for node in nodes}
    clamped = {
        node.output[0]
        for node in model.graph.node
        if node.op_type in CLAMP_OPS and node.input[0] in outputs
    }
    entering = {name for node in nodes for name in graph.computed_inputs(node)}
    return ranges_for(
        model,
        entering | {graph.before_layout_ops(name) for name in entering} | outputs | clamped,
        {input_channels(node) for node in nodes if graph.is_layer(node)},
        spec,
        calibration,
        cache=cache,
        progress=progress,
    )


def input_channels(layer: onnx.NodeProto) -> Channels:
    """Return the input of a layer, and which of its axes counts channels."""
    return layer.input[0], 1 if layer.op_type in ("Conv", "ConvTranspose") else -1


def ranges_for(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    inputs: Iterable[Channels],
    spec: ModelSpec,
    calibration: Calibration | None,
    *,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Ranges:
    """Return the ranges in the file `cache` if they fit, else measure and store them there.

    Args:
        model: FP32.
        tensors: Names of the float tensors to measure ranges of.
        inputs: The tensors to measure the mean of each channel of.
        spec: Of the model.
        calibration: Images like those that the model will see; None takes the stored ranges, of
            any images.
        cache: A .json file; one of another network or other images is replaced.
        progress: Shows the work.

    Raises:
        CalibrationError: Nothing fits and there are no images, one cannot be read, or a tensor is
            not finite on one.
        ExportError: ONNX Runtime cannot run the network.
        InputError: `cache` cannot be written.
    """
    names, channels = sorted(set(tensors)), sorted(set(inputs))
    digest = _digest(model, names, channels, spec)
    stored = _read(cache)
    if (
        stored is not None
        and stored.network_sha256 == digest
        and (calibration is None or stored.calibration_sha256 == calibration.digest)
    ):
        progress.note(f"INT8 uses the stored ranges of {stored.images} images.")
        return stored
    if calibration is None:
        other = f"those in {cache.name!r} are of another network, " if stored and cache else ""
        raise CalibrationError(
            f"INT8 needs images to measure the ranges of activations on: {other}"
            "give --calib DATA; of the data that the model was trained on, the train part is used."
        )
    histograms, means = _measure(model, names, channels, spec, calibration, progress)
    text = Ranges(
        network_sha256=digest,
        calibration_sha256=calibration.digest,
        images=len(calibration.paths),
        tensors={name: histogram.ranges() for name, histogram in histograms.items()},
        means=means,
    ).to_json()
    if cache is not None:
        write_text(cache, text)
    # The file has means of six digits: measured or stored, ranges must lead to the same model.
    return Ranges.from_json(text)


def read_ranges(path: Path) -> Ranges:
    """Read stored ranges.

    Raises:
        CalibrationError: The file is damaged, something else, or cannot be read.
    """
    try:
        return Ranges.from_json(path.read_text(encoding="utf-8"))
    except (CalibrationError, UnicodeDecodeError, OSError) as err:
        raise CalibrationError(
            f"{str(path)!r} is not a file of ranges that edgeml wrote, or is damaged: give "
            "--calib DATA to measure them again."
        ) from err


def _read(path: Path | None) -> Ranges | None:
    """Read ranges, if there is such a file and it is intact."""
    if path is None or not path.is_file():
        return None
    with suppress(CalibrationError):
        return read_ranges(path)
    return None


def _digest(
    model: onnx.ModelProto, names: list[str], channels: list[Channels], spec: ModelSpec
) -> str:
    graph = hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
    question = repr((names, channels, spec.preprocess, spec.input))
    return hashlib.sha256("\n".join((FORMAT, graph, question)).encode()).hexdigest()


def _measure(
    model: onnx.ModelProto,
    names: list[str],
    channels: list[Channels],
    spec: ModelSpec,
    calibration: Calibration,
    progress: Progress,
) -> tuple[dict[str, Histogram], dict[Channels, NDArray[np.float32]]]:
    """Run the network over the images, with every tensor to measure as an output."""
    probe = Probe(model, {*names, *(name for name, _ in channels)})
    histograms = {name: Histogram() for name in names}
    sums: dict[Channels, Any] = dict.fromkeys(channels, 0.0)
    count = len(calibration.paths)
    with progress.task("calibrate INT8", total=count) as advance:
        for batch in calibration.batches(spec, size=_BATCH, advance=advance):
            tensors = probe.run(batch)
            for name, histogram in histograms.items():
                histogram.add(name, tensors[name])
            for name, axis in channels:
                tensor = np.moveaxis(tensors[name], axis, -1)
                mean = tensor.reshape(-1, tensor.shape[-1]).mean(axis=0, dtype=np.float64)
                sums[name, axis] = sums[name, axis] + mean * len(batch)
    means = {key: np.asarray(total / count, np.float32) for key, total in sums.items()}
    return histograms, means


def _lines(name: str, entries: Mapping[str, Any]) -> str:
    """Write an object of JSON with a line for each entry."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
    return f'"{name}": {{\n' + ",\n".join(lines) + "\n}"


def _channels(key: str) -> Channels:
    name, _, axis = key.rpartition(":")
    return name, int(axis)


def _means(values: Any) -> NDArray[np.float32]:
    means = np.asarray(values, np.float64)
    if means.ndim != 1 or not (np.abs(means) <= np.finfo(np.float32).max).all():
        raise ValueError("means must be a list of numbers")
    return means.astype(np.float32)


def _range(pair: Any) -> Range:
    low, high = (float(end) for end in pair)
    if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
        raise ValueError(f"not a range: {pair!r}")
    return low, high
