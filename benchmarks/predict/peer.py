"""One tool that classifies pictures, in a process of its own and with its own environment.

    python benchmarks/predict/peer.py TOOL MODEL THREADS PICTURES

reads commands and writes answers, one JSON object per line, for `peers.py`:
`open`, `answers` (what the tool says of each picture), `block` (time calls for so many seconds).
PICTURES is a folder of JPEGs; a call begins with the bytes of one, or its path with `:paths` behind
the folder, or its decoded frame with `:frames`. Each tool is called as its own documentation shows;
a tool that only takes frames gets what cv2.imdecode makes of the bytes. Nothing of edgeml is
imported for other tools.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

Top = list[tuple[int, float]]
"""Classes with their probabilities, best first."""

TOP = 5


class Tool:
    """What a tool is, as functions: `predict` is timed, `top` reads its result afterwards."""

    def __init__(
        self, predict: Callable[[Any], Any], top: Callable[[Any], Top], about: dict[str, Any]
    ) -> None:
        self.predict, self.top, self.about = predict, top, about


def open_tool(name: str, model: str, threads: int, of_bytes: bool) -> Tool:
    cv2.setNumThreads(threads)
    match name:
        case "edgeml-onnxruntime" | "edgeml-openvino" | "edgeml-crop":
            return _edgeml(model, threads)
        case "edgeml-bf16":
            return _edgeml(model, threads, precision="fast")
        case "edgeml-spinning":  # as others leave ONNX Runtime
            return _edgeml(model, threads, spinning=True)
        case "model_api":
            return _model_api(model, threads, of_bytes, {"INFERENCE_PRECISION_HINT": "f32"})
        case "model_api-bf16":  # which it takes by itself, where the processor has it
            return _model_api(model, threads, of_bytes, {})
        case "transformers":
            return _transformers(model, threads, of_bytes)
        case "ultralytics":
            return _ultralytics(model, threads, of_bytes)
        case "cv2.dnn":
            return _cv2_dnn(model, of_bytes)
        case "usual":
            return _usual(model, threads)
    raise ValueError(name)


def _edgeml(model: str, threads: int, **settings: Any) -> Tool:
    from edgeml import Predictor

    predictor = Predictor(model, threads=threads, **settings)

    def top(prediction: Any) -> Top:
        best = np.argsort(-prediction.scores, kind="stable")[:TOP]
        return [(int(i), float(prediction.scores[i])) for i in best]

    about = {"precision": predictor.runtime.metadata["precision"]}
    return Tool(predictor.predict, top, about)


def _model_api(model: str, threads: int, of_bytes: bool, config: dict[str, Any]) -> Tool:
    import openvino
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import ClassificationModel

    adapter = OpenvinoAdapter(
        openvino.Core(),
        model,
        plugin_config={
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            **config,
        },
        max_num_requests=1,
    )
    classifier = ClassificationModel.create_model(adapter, preload=True)

    def top(result: Any) -> Top:
        return [(int(label.id), float(label.confidence)) for label in result.top_labels]

    precision = adapter.compiled_model.get_property("INFERENCE_PRECISION_HINT")
    about = {"resize": classifier.params.resize_type, "precision": precision.get_type_name()}
    return Tool(_decoded(classifier, of_bytes), top, about)


def _transformers(model: str, threads: int, of_bytes: bool) -> Tool:
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForImageClassification
    from PIL import Image
    from transformers import AutoImageProcessor, pipeline

    torch.set_num_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    network = ORTModelForImageClassification.from_pretrained(model, session_options=options)
    processor = AutoImageProcessor.from_pretrained(model, use_fast=True)
    classify = pipeline("image-classification", model=network, image_processor=processor)

    def predict(picture: Any) -> Any:
        if of_bytes:
            return classify(Image.open(io.BytesIO(picture)))
        return classify(Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))

    def top(result: Any) -> Top:
        return [(int(one["label"].rpartition(" ")[2]), float(one["score"])) for one in result]

    return Tool(predict, top, {"processor": type(processor).__name__})


def _ultralytics(model: str, threads: int, of_bytes: bool) -> Tool:
    import onnxruntime
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(threads)
    # It leaves the number of threads to ONNX Runtime, which takes all cores.
    plain, options = onnxruntime.InferenceSession, onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def limited(path: Any, _: Any = None, **rest: Any) -> Any:
        return plain(path, options, **rest)

    onnxruntime.InferenceSession = limited
    network = YOLO(model, task="classify", verbose=False)

    def predict(frame: Any) -> Any:
        return network.predict(frame, imgsz=224, device="cpu", verbose=False)[0]

    def top(result: Any) -> Top:
        best = zip(result.probs.top5, result.probs.top5conf.tolist(), strict=True)
        return [(int(i), float(p)) for i, p in best]

    return Tool(_decoded(predict, of_bytes), top, {"resize": "crop"})


def _cv2_dnn(model: str, of_bytes: bool) -> Tool:
    net = cv2.dnn.readNetFromONNX(model)

    def predict(frame: Any) -> Any:
        # Mean and deviation are 0.5 in every channel, which this call can say exactly.
        net.setInput(cv2.dnn.blobFromImage(frame, 1 / 127.5, (224, 224), (127.5,) * 3, True))
        logits = net.forward()[0]
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def top(scores: Any) -> Top:
        best = np.argsort(-scores, kind="stable")[:TOP]
        return [(int(i), float(scores[i])) for i in best]

    return Tool(_decoded(predict, of_bytes), top, {"resize": "not antialiased"})


def _usual(model: str, threads: int) -> Tool:
    """Take a path through imread, INTER_AREA, numpy and ONNX Runtime, as most programs do.

    A process of its own, as what edgeml sets when it is imported would serve this code too.
    """
    import onnxruntime
    from usual import bare_ort, numpy_way

    stored = onnxruntime.InferenceSession(model).get_modelmeta().custom_metadata_map["edgeml"]
    preprocess: Any = SimpleNamespace(**json.loads(stored)["preprocess"])
    run = bare_ort(Path(model), threads)
    return Tool(lambda path: run(numpy_way(cv2.imread(path), preprocess)), lambda logits: [], {})


def _decoded(predict: Callable[[Any], Any], of_bytes: bool) -> Callable[[Any], Any]:
    """Put cv2.imdecode before what takes frames only."""
    if not of_bytes:
        return predict
    return lambda data: predict(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def time_block(call: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Time calls as `turns.time_block` does; that module needs edgeml, which is not here."""
    call()
    taken: list[int] = []
    thread, process = time.thread_time_ns(), time.process_time_ns()
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - start)
    thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
    return {
        "wall_ns": taken,
        "thread_ms": thread / len(taken) / 1e6,
        "process_ms": process / len(taken) / 1e6,
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


_SHOWN = (
    "openvino-model-api", "optimum-onnx", "transformers", "ultralytics",
    "onnxruntime", "openvino", "torch", "pillow", "opencv-python", "numpy",
)  # fmt: skip


def main() -> None:
    # What libraries print must not end up between answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, model, threads, where = sys.argv[1:]
    folder, _, kind = where.partition(":")
    files = sorted(Path(folder).glob("*.jpg"))
    pictures = [_picture(file, kind) for file in files]
    steps: dict[str, Callable[..., dict[str, Any]]] = {}
    for command in map(json.loads, sys.stdin):
        try:
            if command["do"] == "open":
                tool = open_tool(name, model, int(threads), kind != "frames")
                steps = _steps(tool, pictures)
            answer = steps[command.pop("do")](**command)
        except Exception as err:
            message = f"{type(err).__name__}: {err}"
            answer = {"error": " ".join(message.split())[:400]}
        print(json.dumps(answer), file=answers, flush=True)


def _picture(file: Path, kind: str) -> Any:
    match kind:
        case "frames":
            return cv2.imread(str(file))
        case "paths":
            return str(file)
        case _:
            return file.read_bytes()


def _steps(tool: Tool, pictures: list[Any]) -> dict[str, Callable[..., dict[str, Any]]]:
    """Give what a parent may ask for."""
    endless = itertools.cycle(pictures)
    tool.predict(next(endless))
    return {
        "open": lambda: {"versions": {name: _version(name) for name in _SHOWN}, **tool.about},
        "answers": lambda: {"answers": [tool.top(tool.predict(one)) for one in pictures]},
        "block": lambda seconds: time_block(lambda: tool.predict(next(endless)), seconds),
    }


if __name__ == "__main__":
    main()
