"""`Predictor("model.onnx").predict(image)`: a model file, ready to run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import EdgemlError, InferenceError, InputError, SpecError
from edgeml.image.frame import Frame
from edgeml.image.memory import raise_mmap_threshold
from edgeml.image.reading import Image, read_image
from edgeml.ordered import ordered_map, usable_cpus
from edgeml.predict.picture import Picture
from edgeml.runtimes import Runtime
from edgeml.runtimes.fixed_batch import with_any_batch_size
from edgeml.runtimes.open import open_model, required_spec
from edgeml.runtimes.protocol import Exactness, FiniteInputs, Mode, RuntimeOptions
from edgeml.spec.decide import NOT_FINITE, interpret, probabilities
from edgeml.spec.model_spec import ModelSpec

Model = Union[str, "os.PathLike[str]", Runtime]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of a model for one image.

    Attributes:
        scores: Probabilities (labels,) float32, in the order of `spec.labels`.
        labels: Names of the labels that are present, by the spec's thresholds and groups.
        spec: The model's spec.
        picture: Finds the image again, to show it in a notebook; None if it is unknown.
    """

    scores: NDArray[np.float32]
    labels: tuple[str, ...]
    spec: ModelSpec
    picture: Picture | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the `k` best labels with their probabilities, best first."""
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.spec.labels[i], float(self.scores[i])) for i in best]

    def to_dict(self) -> dict[str, Any]:
        """Return the labels that are present and all scores by name."""
        scores = {name: float(p) for name, p in zip(self.spec.labels, self.scores, strict=True)}
        return {"labels": list(self.labels), "scores": scores}

    def __repr__(self) -> str:
        from edgeml.predict.display import prediction_line

        return prediction_line(self.spec, self.scores, self.labels)

    def _repr_html_(self) -> str:
        from edgeml.predict.display import prediction_html

        return prediction_html(self.spec, self.scores, self.labels, self.picture)


class Predictor:
    """Runs one model. Safe to share between threads; a context manager that closes it.

    The stages of `predict` are methods of their own, which is what the benchmark times:
    `read` (decode), `prepare` (preprocess), `infer` and `interpret` (postprocess).

    Attributes:
        runtime: Runs the network on batches from elsewhere, which it checks for NaN.
        spec: What the model means.

    Example:
        >>> with Predictor("model.onnx") as predictor:
        ...     prediction = predictor.predict("red.png")
        >>> prediction.labels
        ('red',)
        >>> prediction
        Prediction(red 1.00)
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
        mode: Mode = "latency",
        spinning: bool = False,
        timeout: float | None = None,
        warm_up: bool = False,
    ) -> None:
        """Open a model.

        Args:
            model: An .onnx, .xml or .engine file, a run folder, a folder of another tool, or an
                object with the five members of `edgeml.runtimes.Runtime`.
            runtime: `auto` takes what the suffix asks for; `openvino` also runs .onnx files, and
                so does `tensorrt`, which builds an engine on this GPU at the first use.
            device: `auto`, or what the runtime calls its device.
            spec: Instead of the one in the file, for example with other thresholds.
            threads: CPU threads; None leaves the choice to the runtime.
            precision: `exact` computes an FP32 file in FP32; `fast` lets the device choose.
            mode: `latency` gives one image all `threads`; `throughput` gives each thread an image
                of its own, for `predict_many` or several concurrent callers.
            spinning: Let ONNX Runtime's threads spin while they wait for work: for one Predictor
                that has its processors to itself.
            timeout: Seconds after which ONNX Runtime or OpenVINO stops a run, at the next layer,
                with an error.
            warm_up: Run the network once now, so that the first image takes no longer than others.

        Raises:
            ModelLoadError: The file is missing, damaged, or of a kind no runtime reads.
            EngineMismatchError: An engine was built for another machine, or its passport is wrong.
            ExportError: No engine can be built of this .onnx file.
            MissingDependencyError: The runtime's library is not installed.
            SpecError: The file carries no spec, or one that does not fit the model.
            InputError: An unknown runtime or device, an option that does not apply to the model,
                or a number out of range.
        """
        raise_mmap_threshold()
        options = RuntimeOptions(
            runtime=runtime,
            device=device,
            threads=threads,
            precision=precision,
            mode=mode,
            spinning=spinning,
            timeout=timeout,
        )
        self._network, self.spec = _open(model, options, spec)
        _check_fit(self.spec, self._network)
        self.runtime: Runtime = FiniteInputs(self._network)
        self.closed = False
        self._threads = threads
        if warm_up:
            self.classify([np.zeros((*self.spec.preprocess.size, 3), np.uint8)])

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
        logits = self.logits([self.read(image) for image in images])
        return self.interpret(logits, images)

    def predict_many(
        self, images: Iterable[Image], *, batch: int = 1, workers: int | None = None
    ) -> Iterator[Prediction | EdgemlError]:
        """Classify images as they arrive; yield the results in their order.

        Decoding and inference overlap, best on a Predictor of `mode="throughput"`. The result of an
        image that cannot be read or classified is its error, and the others continue. Memory is
        bounded: 2 x `workers` x `batch` images are read ahead of the next result.

        Args:
            images: As for `predict`; may be endless.
            batch: Images in one run of the network.
            workers: Threads; None takes the Predictor's `threads`, or one for each processor.

        Raises:
            InputError: `batch` or `workers` is below 1.
            InferenceError: The Predictor is closed.
        """
        if workers is None:
            workers = self._threads or usable_cpus()
        for name, value in (("batch", batch), ("workers", workers)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more.")
        remaining = iter(images)
        batches = iter(lambda: list(islice(remaining, batch)), [])
        results = ordered_map(self._results, batches, workers=workers, name="edgeml-predict")
        return (prediction for batch_results in results for prediction in batch_results)

    def _results(self, images: Sequence[Image]) -> list[Prediction | EdgemlError]:
        """Classify a few images in one run of the network; the result of a bad one is its error."""
        errors: dict[int, EdgemlError] = {}
        frames, readable = [], []
        for i, image in enumerate(images):
            try:
                frames.append(self.read(image))
                readable.append(image)
            except EdgemlError as err:
                errors[i] = err
        try:
            results: list[Any] = self.interpret(self.logits(frames), readable) if frames else []
        except InferenceError as err:
            if self.closed:
                raise
            # One image at a time shows which of several it was.
            alone = len(readable) == 1
            results = [err] if alone else [self._results([image])[0] for image in readable]
        for i, error in errors.items():
            results.insert(i, error)
        return results

    def classify(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Classify frames (H, W, 3) uint8 BGR in one run of the network."""
        return self.interpret(self.logits(frames))

    def logits(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        """Return the network's raw output (N, labels) float32 for frames (H, W, 3) uint8 BGR."""
        return self.infer(self.prepare(frames))

    def read(self, image: Image) -> Frame:
        """Decode an image, no larger than the preprocessing needs it."""
        return read_image(image, at_least=self.spec.preprocess.min_decode_size)

    def prepare(self, frames: Sequence[Frame]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Return the network's input: (N, 3, H, W) float32, or (N, H, W, 3) uint8 raw."""
        return self.spec.network_input(frames)

    def infer(self, batch: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network on what `prepare` returned: (N, labels) float32."""
        return self._network.run(batch)

    def interpret(
        self, logits: NDArray[np.float32], images: Sequence[Image] = ()
    ) -> list[Prediction]:
        """Turn the network's output (N, labels) into predictions.

        Args:
            logits: (N, labels) float32.
            images: The N images, which a notebook then shows; optional.

        Raises:
            InferenceError: The output has another width than the spec, or is not finite.
        """
        self._check_width(logits)
        pictures = map(Picture, images) if len(images) else repeat(None)
        scores, labels = interpret(logits, self.spec)
        return [
            Prediction(row, names, self.spec, picture)
            for row, names, picture in zip(scores, labels, pictures, strict=False)
        ]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the spec's activation: (N, labels) to (N, labels).

        Raises:
            InferenceError: The output has another width than the spec, or is not finite.
        """
        self._check_width(logits)
        if not np.isfinite(logits).all():
            raise InferenceError(NOT_FINITE)
        return probabilities(logits, self.spec)

    def _check_width(self, logits: NDArray[np.float32]) -> None:
        if logits.ndim != 2 or logits.shape[1] != len(self.spec.labels):
            raise InferenceError(
                f"The model returned an output of shape {logits.shape}; "
                f"the spec has {len(self.spec.labels)} labels."
            )

    def close(self) -> None:
        """Free the model. A later `predict` raises InferenceError."""
        self.closed = True
        self.runtime.close()

    def __repr__(self) -> str:
        from edgeml.predict.display import predictor_line

        return predictor_line(self.runtime, self.spec)

    def _repr_html_(self) -> str:
        from edgeml.predict.display import predictor_html

        return predictor_html(self.runtime, self.spec)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def model_in(path: Path) -> Path:
    """Return the model file in another tool's folder; any other path unchanged."""
    if not path.is_dir():
        return path
    from edgeml.spec.foreign.merge import model_file

    return model_file(path)


def _open(
    model: Model, options: RuntimeOptions, spec: ModelSpec | None
) -> tuple[Runtime, ModelSpec]:
    if isinstance(model, (str, os.PathLike)):
        return open_model(model_in(Path(model)), options, spec=spec)
    options.refuse(
        *("runtime", "device", "precision", "mode", "spinning", "timeout"),
        subject=f"{model.name}, which is open already",
    )
    return with_any_batch_size(model), spec or required_spec(None, model.metadata)


def _check_fit(spec: ModelSpec, runtime: Runtime) -> None:
    """Refuse a spec that does not fit the network before the first image."""
    expected, sides = spec.input_sides, runtime.input_shape[1:]
    if len(sides) != 3 or any(b not in (None, a) for a, b in zip(expected, sides, strict=True)):
        raise SpecError(
            f"The spec's input is (N, {', '.join(map(str, expected))}); "
            f"the model takes {runtime.input_shape}."
        )
    if spec.output not in (None, runtime.metadata.get("output")):
        raise SpecError(f"The spec names the output {spec.output!r}; {runtime.name} has no choice.")
