"""`Predictor("model.onnx").predict(image)`: a model file, ready to be asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, MissingSpecError, SpecError
from edgeml.images import Image, read_image
from edgeml.metrics import decide
from edgeml.preprocess import Frame
from edgeml.runtimes import Runtime, open_runtime
from edgeml.runtimes._base import Exactness
from edgeml.spec import METADATA_KEY, ModelSpec

Model = Union[str, "os.PathLike[str]", Runtime]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one image.

    Attributes:
        scores: Probabilities (labels,) float32, in the order of `spec.labels`.
        labels: Names of the labels that are present, by the spec's thresholds and groups.
        spec: The model's spec.
    """

    scores: NDArray[np.float32]
    labels: tuple[str, ...]
    spec: ModelSpec

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Give the `k` best labels with their probabilities, best first."""
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.spec.labels[i], float(self.scores[i])) for i in best]

    def to_dict(self) -> dict[str, Any]:
        """Give the labels and all scores by name."""
        scores = {name: float(p) for name, p in zip(self.spec.labels, self.scores, strict=True)}
        return {"labels": list(self.labels), "scores": scores}


class Predictor:
    """Runs one model. Safe to share between threads; a context manager that closes it.

    The stages of `predict` are methods of their own, which is what the benchmark times:
    `read` (decode), `prepare` (preprocess), `runtime.run` (infer), `interpret` (postprocess).
    """

    def __init__(
        self,
        model: Model,
        *,
        runtime: str = "auto",
        device: str = "auto",
        spec: ModelSpec | None = None,
        threads: int | None = None,
        precision: Exactness = "exact",
    ) -> None:
        """Open a model.

        Args:
            model: An .onnx, .xml or .engine file, a run folder, or an object with the five
                members of `edgeml.runtimes.Runtime`.
            runtime: `auto` takes what the suffix asks for; `openvino` also runs .onnx files, and
                so does `tensorrt`, which builds an engine on this GPU at the first use.
            device: `auto`, or what the runtime calls its device.
            spec: Instead of the one in the file, for example with other thresholds.
            threads: CPU threads; None leaves the choice to the runtime.
            precision: `exact` computes an FP32 file in FP32; `fast` lets the device choose.

        Raises:
            ModelLoadError: The file is missing, damaged, or of a kind no runtime reads.
            EngineMismatchError: An engine was built for another machine, or its passport is wrong.
            ExportError: No engine can be built of this .onnx file.
            MissingDependencyError: The runtime's library is not installed.
            SpecError: The file carries no spec, or one that does not fit the model.
        """
        if isinstance(model, (str, os.PathLike)):
            path = Path(model)
            self.runtime = open_runtime(
                path, runtime=runtime, device=device, threads=threads, precision=precision
            )
            self.spec = spec or _spec_of(path, self.runtime)
        else:
            self.runtime = model
            self.spec = spec or _spec_of(None, model)
        _check_fit(self.spec, self.runtime)

    def predict(self, image: Image) -> Prediction:
        """Classify one image: a path, encoded bytes, a PIL image, or (H, W, 3) uint8 BGR.

        Raises:
            ImageError: It cannot be read or decoded.
            InputError: An array of another shape or dtype.
            InferenceError: The runtime failed, or the Predictor is closed.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[Image]) -> list[Prediction]:
        """Classify several images in one run of the network. Raises as `predict` does."""
        if not len(images):
            return []
        batch = self.prepare([self.read(image) for image in images])
        return self.interpret(self.runtime.run(batch))

    def logits(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        """Give the network's raw output (N, labels) float32 for frames (H, W, 3) uint8 BGR."""
        return self.runtime.run(self.prepare(frames))

    def read(self, image: Image) -> Frame:
        """Decode an image, no larger than the preprocessing needs it."""
        return read_image(image, at_least=self.spec.preprocess.whole)

    def prepare(self, frames: Sequence[Frame]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Make the network's input: (N, 3, H, W) float32, or (N, H, W, 3) uint8 raw."""
        if self.spec.input == "uint8":
            return np.stack([self.spec.preprocess.fit(frame) for frame in frames])
        return self.spec.preprocess(frames)

    def interpret(self, logits: NDArray[np.float32]) -> list[Prediction]:
        """Turn the network's output (N, labels) into predictions.

        Raises:
            InferenceError: The output has another width than the spec, or is not finite.
        """
        scores = self.probabilities(logits)
        present = decide(scores, self.spec)
        names = np.asarray(self.spec.labels, dtype=object)
        return [
            Prediction(row, tuple(names[flags]), self.spec)
            for row, flags in zip(scores, present, strict=True)
        ]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply what the spec says is still to be applied: (N, labels) to (N, labels).

        Raises:
            InferenceError: The output has another width than the spec, or is not finite.
        """
        if logits.ndim != 2 or logits.shape[1] != len(self.spec.labels):
            raise InferenceError(
                f"The model gave an output of shape {logits.shape}; "
                f"the spec has {len(self.spec.labels)} labels."
            )
        if not np.isfinite(logits).all():
            raise InferenceError("The model gave a score that is not a finite number.")
        return self.spec.probabilities(logits)

    def close(self) -> None:
        """Free the model. A later `predict` raises InferenceError."""
        self.runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _spec_of(path: Path | None, runtime: Runtime) -> ModelSpec:
    """Find the spec: a file `<model>.json` beside the model wins over what is inside it.

    Beside an engine that file is its passport, out of which its runtime gives the spec.
    """
    sidecar = path.with_name(path.name + ".json") if path and path.suffix != ".engine" else None
    if sidecar and sidecar.is_file():
        return ModelSpec.from_json(sidecar.read_text(encoding="utf-8"))
    inside = runtime.metadata.get(METADATA_KEY)
    if inside is None:
        beside = f" nor beside it as {sidecar.name}" if sidecar else ""
        raise MissingSpecError(
            f"The model says nothing of its labels and preprocessing: no spec inside it{beside}. "
            "Export it with edgeml, or pass spec=ModelSpec(...)."
        )
    return ModelSpec.from_json(inside)


def _check_fit(spec: ModelSpec, runtime: Runtime) -> None:
    """Refuse on loading what would fail, or lie, on the first image."""
    height, width = spec.preprocess.size
    expected = (height, width, 3) if spec.input == "uint8" else (3, height, width)
    if tuple(runtime.input_shape[1:]) != expected:
        raise SpecError(
            f"The spec's input is (N, {', '.join(map(str, expected))}); "
            f"the model takes {runtime.input_shape}."
        )
