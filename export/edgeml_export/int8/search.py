"""The choices of an INT8 export, made on fitting images: ranges, and layers that stay float."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from edgeml.measure.compare import Fidelity, FidelityError, Outputs, measure
from edgeml.measure.evaluation import align_targets
from edgeml.progress import SILENT, Progress
from edgeml.runtimes import RuntimeOptions, open_runtime
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.spec.decide import probabilities
from edgeml.spec.labels import Scores
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.budget import MixedPrecision, divergence, rank, smallest_float_set
from edgeml_export.int8.histogram import METHODS, Method
from edgeml_export.int8.layers import quantizable
from edgeml_export.int8.ranges import Ranges
from edgeml_export.int8.targets import Target
from edgeml_export.limits import Limits, exceeded, joined

_BATCH = 32

# Frames stay in memory, as uint8: 150 MB at 224 pixels.
_MAX_FITTED = 1000

# The divergence is smooth, so a part of the images orders layers as well as all of them.
_RANKED_WITH = 128

# The share of the time for mixed precision; the rest is for trying sets of layers.
_SHARE_OF_RANKING = 0.6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a network is quantised.

    Attributes:
        method: How ranges are taken.
        keep: Names of the layers that stay in floating point.
        divergences: How far each method that was tried moves decisions, in nats a decision.
        mixed: The search for `keep`; None if none was needed.
    """

    method: Method
    keep: frozenset[str] = frozenset()
    divergences: Mapping[str, float] = field(default_factory=dict)
    mixed: MixedPrecision | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml export --json` prints about it."""
        return {
            "method": self.method,
            "divergence": dict(self.divergences),
            "kept_in_float": sorted(self.keep),
            "quantizable": self.mixed and self.mixed.quantizable,
        }


class Candidates:
    """Quantises one network in several ways, and runs each on the fitting images."""

    def __init__(
        self,
        network: Path,
        ranges: Ranges,
        layout: Target,
        fitting: Dataset,
        *,
        progress: Progress = SILENT,
    ) -> None:
        """Prepare the images and run the network itself.

        Args:
            network: FP32.
            ranges: By `measure_ranges`.
            layout: Of the Q/DQ nodes; OpenVINO runs the layout that is meant for it.
            fitting: Labelled images.
            progress: Shows the work.

        Raises:
            ImageError: An image cannot be read.
        """
        model = read_onnx(network)
        self.spec = spec = spec_of_onnx(model, network)
        self.layout = layout
        self.network, self._ranges = network, ranges
        self._folder = network.parent / "candidate"
        self._folder.mkdir(exist_ok=True)
        if len(fitting) > _MAX_FITTED:
            fitting = fitting.select(np.linspace(0, len(fitting) - 1, _MAX_FITTED).astype(int))
        self._targets = align_targets(fitting, spec)
        self._runtime = "openvino" if layout == "openvino" else "onnxruntime"
        self._frames = np.stack(_fitted_frames(fitting.paths, spec, progress))
        self._reference = self._run(network)
        self.layers = quantizable(model, layout)

    @property
    def reference(self) -> Scores:
        """The probabilities of the network itself: (N, labels)."""
        return probabilities(self._reference, self.spec)

    def scores(
        self, method: Method, keep: Collection[str] = (), *, limit: int | None = None
    ) -> Scores:
        """Return the probabilities of a candidate, (N, labels), on the first `limit` images."""
        return probabilities(self._candidate(method, keep, limit), self.spec)

    def fidelity(self, method: Method, keep: Collection[str] = ()) -> Fidelity:
        """Compare a candidate with the network."""
        outputs = Outputs(
            reference=self._reference,
            candidate=self._candidate(method, keep, None),
            targets=self._targets,
            inputs_equal=len(self._frames),
            inputs_max_abs=0.0,
        )
        return measure(outputs, self.spec, self.spec)

    def _candidate(
        self, method: Method, keep: Collection[str], limit: int | None
    ) -> NDArray[np.float32]:
        from edgeml_export.int8.to_int8 import int8_from_onnx

        if set(self.layers) <= set(keep):
            return self._reference[:limit]
        path = self._folder / self.network.name
        int8_from_onnx(
            self.network, path, self._ranges, layout=self.layout, method=method, keep=keep
        )
        return self._run(path, limit)

    def _run(self, path: Path, limit: int | None = None) -> NDArray[np.float32]:
        frames = self._frames[:limit]
        runtime = open_runtime(path, RuntimeOptions(runtime=self._runtime))
        try:
            return np.concatenate(
                [
                    runtime.run(self.spec.network_input_fitted(frames[start : start + _BATCH]))
                    for start in range(0, len(frames), _BATCH)
                ]
            )
        finally:
            runtime.close()


def _fitted_frames(paths: Sequence[Path], spec: ModelSpec, progress: Progress) -> list[Frame]:
    """Read images and resize them to the network's size, in two threads."""

    def read(path: Path) -> Frame:
        frame = read_image(path, at_least=spec.preprocess.min_decode_size)
        advance(1)
        return spec.preprocess.fit(frame)

    with (
        progress.task("read fitting images", total=len(paths)) as advance,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        return list(pool.map(read, paths))


def choose_method(candidates: Candidates, *, progress: Progress = SILENT) -> Choice:
    """Try every way to take ranges, and take the one that moves decisions least."""
    divergences: dict[str, float] = {}
    with progress.task("try INT8 ranges", total=len(METHODS), unit="trials") as advance:
        for method in METHODS:
            scores = candidates.scores(method)
            divergences[method] = divergence(candidates.reference, scores, candidates.spec)
            advance(1)
    best = min(METHODS, key=lambda method: divergences[method])
    return Choice(method=best, divergences=divergences)


def choose_layers(
    candidates: Candidates,
    limits: Limits,
    choice: Choice,
    *,
    minutes: float = 10.0,
    progress: Progress = SILENT,
) -> Choice:
    """Choose the layers that stay in float: none, if the budget holds with all in INT8.

    Args:
        candidates: The network, quantised in any way.
        limits: The budget, which must hold on the fitting images.
        choice: Names the method that ranges are taken by.
        minutes: After which the search ends.
        progress: Shows the work.

    Raises:
        FidelityError: The budget holds with none of the sets of layers that were tried.
    """
    plain = candidates.fidelity(choice.method)
    excess = exceeded(plain, limits)
    if not excess:
        return choice
    progress.note(f"Plain INT8 is outside the budget on the fitting images: {joined(excess)}.")
    mixed = _mix(candidates, limits, choice.method, plain, 60 * minutes, progress)
    keep = mixed.in_float
    progress.note(
        f"Mixed precision: {len(keep)} of {mixed.quantizable} layers stay in floating point: "
        f"{', '.join(sorted(keep, key=candidates.layers.index))}."
    )
    return replace(choice, keep=keep, mixed=mixed)


def _mix(
    candidates: Candidates,
    limits: Limits,
    method: Method,
    plain: Fidelity,
    seconds: float,
    progress: Progress,
) -> MixedPrecision:
    """Find the fewest layers that must stay in float.

    Raises:
        FidelityError: The budget holds with no set that was tried; carries plain INT8's figures.
    """
    started = time.monotonic()
    ranked = rank(
        candidates.layers,
        lambda keep: candidates.scores(method, keep, limit=_RANKED_WITH),
        candidates.reference[:_RANKED_WITH],
        candidates.spec,
        deadline=started + _SHARE_OF_RANKING * seconds,
        progress=progress,
    )
    steps: dict[int, float] = {0: plain.drops.mAP.points}

    def holds(keep: frozenset[str]) -> bool:
        fidelity = candidates.fidelity(method, keep) if keep else plain
        steps[len(keep)] = fidelity.drops.mAP.points
        return not exceeded(fidelity, limits)

    names = [node.name for node in ranked]
    keep = smallest_float_set(names, holds, deadline=started + seconds, progress=progress)
    if keep is None or len(keep) == len(names):
        raise FidelityError(
            f"INT8 exceeds its budget on {plain.images} fitting images: "
            f"{joined(exceeded(plain, limits))}. In {time.monotonic() - started:.0f} s no set "
            "of layers in floating point was found that stays within it. Nothing was written. "
            "Allow more with --max-drop and --max-label-drop, or use FP16.",
            replace(plain, passed=False),
        )
    kinds = {node.name: node.op_type for node in read_onnx(candidates.network).graph.node}
    return MixedPrecision(
        nodes=[
            replace(node, kind=kinds.get(node.name, ""), in_float=node.name in keep)
            for node in ranked
        ],
        steps=sorted((count, points) for count, points in steps.items() if math.isfinite(points)),
        seconds=time.monotonic() - started,
    )
