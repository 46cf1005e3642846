"""What INT8 needs to know of activations: measured once on images, kept as JSON, for any target."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import CalibrationError, ExportError, needs
from edgeml.files import write_text
from edgeml.progress import SILENT, Progress
from edgeml.runtimes.fixed_batch import rounds
from edgeml.runtimes.telemetry import without_telemetry
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.calibration import Calibration

if TYPE_CHECKING:
    import onnx

FORMAT = "edgeml.ranges/1"

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

Channels = tuple[str, int]
"""A tensor's name, and which of its axes counts channels."""

Range = tuple[float, float]
"""The least and the greatest value that is told from others; 0 lies between."""

PERCENTILE = 99.99
"""How many percent of the values the range of `percentile` holds; as many lie on either side."""

# Of 4096 bins over [-r, r], with r a power of two, at least a quarter covers what was seen.
_BINS = 4096

# What reading other JSON than ours raises.
_MALFORMED = ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError

# Of one tensor of one batch. The least and greatest value are taken from all of them.
_MOST_SAMPLED = 1 << 16

# Ranges are merged over batches, so this changes time only: less overhead a picture than with 1.
_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges of a network's tensors, by each way to take them, and means of what enters layers.

    Attributes:
        network_sha256: Digest of the network, its preprocessing, and what was asked of it.
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
        """Give each tensor's range by one method."""
        return {name: ranges[method] for name, ranges in self.tensors.items()}

    def to_json(self) -> str:
        """Write them, a line each tensor."""
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
        """Read what `to_json` wrote.

        Raises:
            CalibrationError: It is something else.
        """
        try:
            told = json.loads(text)
            if told["format"] != FORMAT:
                raise ValueError(told["format"])
            return cls(
                network_sha256=str(told["network_sha256"]),
                calibration_sha256=str(told["calibration_sha256"]),
                images=int(told["images"]),
                tensors={
                    str(name): {method: _range(ranges[method]) for method in METHODS}
                    for name, ranges in told["tensors"].items()
                },
                means={_channels(key): _means(values) for key, values in told["means"].items()},
            )
        except _MALFORMED as err:
            raise CalibrationError(f"These are no ranges that edgeml wrote: {err!r}.") from err


def ranges_for(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    inputs: Iterable[Channels],
    spec: ModelSpec,
    calibration: Calibration | None,
    *,
    kept: Path | None = None,
    progress: Progress = SILENT,
) -> Ranges:
    """Give the ranges of `tensors`: from the file `kept` if they fit, else measured and kept there.

    Args:
        model: FP32.
        tensors: Names of float tensors in it, whose ranges are wanted.
        inputs: Those of which the mean of each channel is.
        spec: Of the model.
        calibration: Images like those that will come; None takes what is kept, of any images.
        kept: A .json; one that is of another network or other images is replaced.
        progress: Where the work shows itself.

    Raises:
        CalibrationError: Nothing fits and there are no images, one cannot be read, or a tensor is
            not finite on one.
        ExportError: ONNX Runtime cannot run the network.
        InputError: `kept` cannot be written.
    """
    names, channels = sorted(set(tensors)), sorted(set(inputs))
    digest = _digest(model, names, channels, spec)
    known = _read(kept)
    if (
        known is not None
        and known.network_sha256 == digest
        and (calibration is None or known.calibration_sha256 == calibration.digest)
    ):
        progress.note(f"INT8 takes the ranges of {known.images} images that were kept.")
        return known
    if calibration is None:
        raise CalibrationError(
            "INT8 needs images to measure the ranges of activations on: "
            + (f"those kept in {kept.name!r} are of another network, " if known and kept else "")
            + "give --calib DATA; of the data trained with, the train part is used."
        )
    histograms, means = _measure(model, names, channels, spec, calibration, progress)
    text = Ranges(
        network_sha256=digest,
        calibration_sha256=calibration.digest,
        images=len(calibration.paths),
        tensors={name: histogram.ranges() for name, histogram in histograms.items()},
        means=means,
    ).to_json()
    if kept is not None:
        write_text(kept, text)
    # Means are written with six digits: measured or kept, the same model must come of them.
    return Ranges.from_json(text)


def read_ranges(kept: Path) -> Ranges:
    """Read ranges that were kept.

    Raises:
        CalibrationError: The file is damaged, something else, or cannot be read.
    """
    try:
        return Ranges.from_json(kept.read_text(encoding="utf-8"))
    except (CalibrationError, UnicodeDecodeError, OSError) as err:
        raise CalibrationError(
            f"{str(kept)!r} holds no ranges that edgeml wrote, or is damaged: give --calib DATA, "
            "and they are measured anew."
        ) from err


def _read(kept: Path | None) -> Ranges | None:
    """Read ranges, if there is such a file and it is whole."""
    if kept is None or not kept.is_file():
        return None
    with suppress(CalibrationError):
        return read_ranges(kept)
    return None


def _digest(
    model: onnx.ModelProto, names: list[str], channels: list[Channels], spec: ModelSpec
) -> str:
    graph = hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
    asked = repr((names, channels, spec.preprocess, spec.input))
    return hashlib.sha256("\n".join((FORMAT, graph, asked)).encode()).hexdigest()


def _measure(
    model: onnx.ModelProto,
    names: list[str],
    channels: list[Channels],
    spec: ModelSpec,
    calibration: Calibration,
    progress: Progress,
) -> tuple[dict[str, _Histogram], dict[Channels, NDArray[np.float32]]]:
    """Run the network over the images and look at every tensor that is asked for."""
    session = _open(model, {*names, *(name for name, _ in channels)})
    asked = [output.name for output in session.get_outputs()]
    given = session.get_inputs()[0].name
    histograms = {name: _Histogram() for name in names}
    sums: dict[Channels, Any] = dict.fromkeys(channels, 0.0)
    count = len(calibration.paths)
    with progress.task("calibrate INT8", total=count) as advance:
        for batch in calibration.batches(spec, size=_BATCH, advance=advance):
            tensors = dict(zip(asked, _run(session, asked, batch), strict=True))
            tensors[given] = batch
            for name, histogram in histograms.items():
                histogram.add(name, tensors[name])
            for name, axis in channels:
                tensor = np.moveaxis(tensors[name], axis, -1)
                mean = tensor.reshape(-1, tensor.shape[-1]).mean(axis=0, dtype=np.float64)
                sums[name, axis] = sums[name, axis] + mean * len(batch)
    means = {key: np.asarray(total / count, np.float32) for key, total in sums.items()}
    return histograms, means


def _run(session: Any, names: list[str], batch: NDArray[Any]) -> list[NDArray[Any]]:
    """Run any number of images, in rounds if the network takes one number only.

    The tensors are those of a network that takes any batch, in the same order of values.
    """
    network_input = session.get_inputs()[0]
    size = network_input.shape[0]
    if not isinstance(size, int):
        return list(session.run(names, {network_input.name: batch}))
    outputs = [session.run(names, {network_input.name: part}) for part in rounds(batch, size)]
    return [
        np.concatenate(parts)[: len(batch) * len(parts[0]) // size]
        for parts in zip(*outputs, strict=True)
    ]


def _open(model: onnx.ModelProto, names: set[str]) -> Any:
    """Open the network in ONNX Runtime with every named tensor as an output."""
    with needs("onnxruntime", extra="export", to="measure INT8 ranges"), without_telemetry():
        import onnxruntime as ort
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in (*watched.graph.output, *watched.graph.input)}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - known))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        path = Path(folder) / "watched.onnx"
        path.write_bytes(watched.SerializeToString())
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as err:  # ONNX Runtime's own errors share no public base class
            raise ExportError(f"ONNX Runtime cannot run the network: {err}") from err


class _Histogram:
    """Counts values in bins over [-r, r], where r doubles when a value lies beyond it."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self._reach = 0.0
        self._counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)

    def add(self, name: str, tensor: NDArray[Any]) -> None:
        """Count the values of a tensor of any shape.

        Raises:
            CalibrationError: One of them is no finite number.
        """
        values = tensor.reshape(-1)
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError(
                f"The tensor {name!r} is not finite on an image: the FP32 model itself is broken."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._stretch(max(-low, high))
        # An odd step does not fall into step with rows and channels.
        values = values[:: math.ceil(len(values) / _MOST_SAMPLED) | 1]
        if not self._reach:  # nothing but 0 so far
            self._counts[_BINS // 2] += len(values)
            return
        bins = values * (_BINS / (2 * self._reach)) + _BINS / 2
        self._counts += np.bincount(np.clip(bins.astype(np.int32), 0, _BINS - 1), minlength=_BINS)

    def ranges(self) -> dict[Method, Range]:
        """Give the range by each method, never wider than what was seen."""
        wide = self.low, self.high
        return {
            "minmax": wide,
            "percentile": self._within(wide, self._percentile()),
            "entropy": self._within(wide, self._entropy()),
        }

    def _stretch(self, reach: float) -> None:
        # What is smaller than a float32 can divide by is taken for 0.
        if reach <= max(self._reach, float(np.finfo(np.float32).tiny) * _BINS):
            return
        wanted = 2.0 ** math.ceil(math.log2(reach))
        if self._reach:
            while self._reach < wanted:
                pairs = self._counts.reshape(-1, 2).sum(axis=1)
                self._counts = np.pad(pairs, _BINS // 4)
                self._reach *= 2
        self._reach = wanted

    @staticmethod
    def _within(wide: Range, narrow: Range) -> Range:
        return max(wide[0], min(narrow[0], 0.0)), min(wide[1], max(narrow[1], 0.0))

    def _percentile(self) -> Range:
        share = np.cumsum(self._counts) / max(1, self._counts.sum())
        tail = (1 - PERCENTILE / 100) / 2
        below = int(np.searchsorted(share, tail, side="right"))
        above = int(np.searchsorted(share, 1 - tail, side="left"))
        width = 2 * self._reach / _BINS
        return below * width - self._reach, (above + 1) * width - self._reach

    def _entropy(self) -> Range:
        """Cut where the least is lost of what the distribution of magnitudes says."""
        half = _BINS // 2
        magnitudes = self._counts[half:] + self._counts[:half][::-1]
        reach = entropy_cut(magnitudes) * self._reach / half
        return -reach, reach


def entropy_cut(counts: NDArray[np.int64], levels: int = 128) -> int:
    """Give the number of bins to keep so that quantising them loses the least information.

    The counts beyond the cut go to its last bin (P); the kept bins are merged into `levels` and
    spread again over those that were not empty (Q); the cut with the least Kullback-Leibler
    divergence of P from Q wins. Migacz, 8-bit Inference with TensorRT, GTC 2017.

    Args:
        counts: (B,) of magnitudes, from 0 up.
        levels: Steps that a magnitude has in 8 bits.
    """
    filled = np.flatnonzero(counts)
    last = int(filled[-1]) + 1 if len(filled) else 0
    if last <= levels:
        return last
    best, least = last, math.inf
    # The bin at 0 holds what a ReLU cut off: it would drown the rest (as in MXNet and ORT).
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    for cut in [*range(levels, last, max(1, (last - levels) // 128)), last]:
        kept = counts[:cut]
        if not kept.any():
            continue  # all would lie beyond, and P and Q be the same single bin
        p = kept.copy()
        p[-1] += counts[cut:].sum()
        group = np.arange(cut) * levels // cut
        full = kept > 0
        sums = np.bincount(group, kept, levels)
        members = np.bincount(group, full, levels)
        q = np.where(full, (sums / np.maximum(members, 1))[group], 0)
        # What is cut off into an empty bin has no counterpart in Q: a small one stands for it.
        q[(p > 0) & (q == 0)] = 1e-4
        p, q = p / p.sum(), q / q.sum()
        some = p > 0
        lost = float((p[some] * np.log(p[some] / q[some])).sum())
        if lost < least:
            best, least = cut, lost
    return best


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
        raise ValueError("means must be a row of numbers")
    return means.astype(np.float32)


def _range(pair: Any) -> Range:
    low, high = (float(end) for end in pair)
    if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
        raise ValueError(f"no range: {pair!r}")
    return low, high
