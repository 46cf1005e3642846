"""The choices of an INT8 export, made on fitting images: ranges, and layers that stay float."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from edgeml.measure.compare import Fidelity, FidelityError, Outputs, measure
from edgeml.measure.evaluation import align_targets
from edgeml.progress import SILENT, Progress
from edgeml.runtimes import open_runtime
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.spec.labels import Scores
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.budget import divergence, fewest, rank
from edgeml_export.int8.layers import quantizable
from edgeml_export.int8.ranges import METHODS, Method, Ranges
from edgeml_export.int8.targets import Target
from edgeml_export.limits import Limits, exceeded

if TYPE_CHECKING:
    from edgeml.measure.contents import MixedPrecision, TriedMethod

_BATCH = 32

# Frames are kept in memory, as uint8: 150 MB at 224 pixels.
_MOST_FITTED = 1000

# A divergence is smooth, so a part of the images orders layers as well as all of them.
_RANKED_WITH = 128

# Of the time for mixed precision; the rest is for trying choices of layers.
_SHARE_OF_RANKING = 0.6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a network is to be quantised.

    Attributes:
        method: How ranges are taken.
        keep: Names of the layers that stay in floating point.
        tried: The methods that were tried.
        mixed: The search for `keep`; None if none was needed.
    """

    method: Method
    keep: frozenset[str] = frozenset()
    tried: tuple[TriedMethod, ...] = ()
    mixed: MixedPrecision | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml export --json` tells of it."""
        return {
            "method": self.method,
            "divergence": {one.name: one.divergence for one in self.tried},
            "kept_in_float": sorted(self.keep),
            "quantizable": self.mixed and self.mixed.quantizable,
        }


class Candidates:
    """Quantises one network in several ways, and asks each about the fitting images."""

    def __init__(
        self,
        network: Path,
        ranges: Ranges,
        layout: Target,
        fitting: Dataset,
        *,
        progress: Progress = SILENT,
    ) -> None:
        """Prepare the images and ask the network itself.

        Args:
            network: FP32.
            ranges: By `measure_ranges`.
            layout: Of the Q/DQ nodes; OpenVINO runs what is meant for it.
            fitting: Labelled images.
            progress: Where the work shows itself.

        Raises:
            ImageError: An image cannot be read.
        """
        model = read_onnx(network)
        self.spec = spec = spec_of_onnx(model, network)
        self.layout = layout
        self.network, self._ranges = network, ranges
        if len(fitting) > _MOST_FITTED:
            fitting = fitting.select(np.linspace(0, len(fitting) - 1, _MOST_FITTED).astype(int))
        self._targets = align_targets(fitting, spec)
        self._runtime = "openvino" if layout == "openvino" else "onnxruntime"
        self._frames = np.stack(_fitted_frames(fitting.paths, spec, progress))
        self._reference = self._run(network)
        self.layers = quantizable(model, layout)

    @property
    def reference(self) -> Scores:
        """What the network itself says: probabilities (N, labels)."""
        return self.spec.probabilities(self._reference)

    def scores(
        self, method: Method, keep: Collection[str] = (), *, most: int | None = None
    ) -> Scores:
        """Give the probabilities (N or `most`, labels) of a candidate."""
        return self.spec.probabilities(self._candidate(method, keep, most))

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
        self, method: Method, keep: Collection[str], most: int | None
    ) -> NDArray[np.float32]:
        from edgeml_export.int8.to_int8 import int8_from_onnx

        if set(self.layers) <= set(keep):
            return self._reference[:most]
        path = self.network.with_name("candidate.onnx")
        int8_from_onnx(
            self.network, path, self._ranges, layout=self.layout, method=method, keep=keep
        )
        return self._run(path, most)

    def _run(self, path: Path, most: int | None = None) -> NDArray[np.float32]:
        frames = self._frames[:most]
        runtime = open_runtime(path, runtime=self._runtime)
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
    """Read images and bring them to the network's size; two threads do."""

    def read(path: Path) -> Frame:
        frame = read_image(path, at_least=spec.preprocess.whole)
        advance(1)
        return spec.preprocess.fit(frame)

    with (
        progress.task("read fitting images", total=len(paths)) as advance,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        return list(pool.map(read, paths))


def choose_method(candidates: Candidates, *, progress: Progress = SILENT) -> Choice:
    """Try every way to take ranges, and take the one that moves decisions least."""
    from edgeml.measure.contents import TriedMethod

    moved: dict[Method, float] = {}
    with progress.task("try INT8 ranges", total=len(METHODS), unit="trials") as advance:
        for method in METHODS:
            scores = candidates.scores(method)
            moved[method] = divergence(candidates.reference, scores, candidates.spec)
            advance(1)
    best = min(moved, key=lambda name: moved[name])
    tried = tuple(
        TriedMethod(name=name, divergence=value, kept=name == best) for name, value in moved.items()
    )
    return Choice(method=best, tried=tried)


def choose_layers(
    candidates: Candidates,
    limits: Limits,
    choice: Choice,
    *,
    minutes: float = 10.0,
    progress: Progress = SILENT,
) -> Choice:
    """Choose what stays in float, which is nothing if the budget holds without.

    Args:
        candidates: What there is to choose from.
        limits: The budget, held on the fitting images.
        choice: Says how ranges are taken.
        minutes: After which the search ends.
        progress: Where the work shows itself.

    Raises:
        FidelityError: The budget does not hold with any choice that was found.
    """
    plain = candidates.fidelity(choice.method)
    found = exceeded(plain, limits)
    if not found:
        return choice
    progress.note(f"Plain INT8 is outside the budget on the fitting images: {'; '.join(found)}.")
    mixed = _mix(candidates, limits, choice.method, plain, 60 * minutes, progress)
    keep = frozenset(node.name for node in mixed.nodes if node.in_float)
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
        FidelityError: None are found with which the budget holds; carries plain INT8's figures.
    """
    from edgeml.measure.contents import MixedPrecision, RankedNode

    started = time.monotonic()
    ranked = rank(
        candidates.layers,
        lambda keep: candidates.scores(method, keep, most=_RANKED_WITH),
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

    names = [one.node for one in ranked]
    keep = fewest(names, holds, deadline=started + seconds, progress=progress)
    if keep is None or len(keep) == len(names):
        raise FidelityError(
            f"INT8 does not hold its budget on {plain.images} fitting images: "
            f"{'; '.join(exceeded(plain, limits))}; and no choice of layers to leave in floating "
            f"point that was found in {time.monotonic() - started:.0f} s does. Nothing was "
            "written. Allow more with --max-drop and --max-label-drop, or take FP16.",
            replace(plain, passed=False),
        )
    kinds = {node.name: node.op_type for node in read_onnx(candidates.network).graph.node}
    return MixedPrecision(
        nodes=[
            RankedNode(
                name=one.node,
                kind=kinds.get(one.node, ""),
                damage=one.damage,
                in_float=one.node in keep,
            )
            for one in ranked
        ],
        quantizable=len(names),
        unit="nats a decision",
        steps=sorted((count, points) for count, points in steps.items() if math.isfinite(points)),
        seconds=time.monotonic() - started,
    )
