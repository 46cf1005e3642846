"""From nothing to the first prediction, in fresh processes that take turns.

    python benchmarks/predict/cold.py edgeml|bare RUNTIME MODEL PICTURE THREADS

is one such process: it prints how long each step took. The clock starts after Python has.
"""

from __future__ import annotations

from time import perf_counter

START = perf_counter()


def edgeml(runtime: str, model: str, picture: str, threads: int) -> list[float]:
    """Predict once with edgeml; gives the times after import, load and prediction."""
    from edgeml import Predictor

    imported = perf_counter()
    predictor = Predictor(model, runtime=runtime, threads=threads)
    loaded = perf_counter()
    predictor.predict(picture)
    return [imported, loaded, perf_counter()]


def bare(runtime: str, model: str, picture: str, threads: int) -> list[float]:
    """Do the same job by the bare libraries, in the least code that does it."""
    import cv2
    import numpy as np

    if runtime == "onnxruntime":
        import onnxruntime

        imported = perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options)
        entry = session.get_inputs()[0]
        height, width = entry.shape[2:]
    else:
        import openvino

        imported = perf_counter()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        config["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = openvino.Core().compile_model(model, "CPU", config)
        height, width = (side.get_length() for side in compiled.inputs[0].partial_shape[2:])
    loaded = perf_counter()
    frame = cv2.imread(picture)
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    rgb = np.float32(small[..., ::-1]) / np.float32(255)
    normal = (rgb - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    batch = np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
    logits = (
        session.run(None, {entry.name: batch})[0]
        if runtime == "onnxruntime"
        else compiled([batch])[0]
    )
    1 / (1 + np.exp(-logits))
    return [imported, loaded, perf_counter()]


def measure(runtime: str, model: object, picture: object, threads: int, starts: int) -> dict:  # type: ignore[type-arg]
    """Start both so many times in turns; one start of each before does not count."""
    import json
    import random
    import statistics
    import subprocess
    import sys
    import time

    from material import child_environment

    lot, found = random.Random(0), {"edgeml": [], "bare": []}  # type: ignore[var-annotated]
    for number in range(starts + 1):
        for who in lot.sample(sorted(found), 2):
            command = [sys.executable, __file__, who, runtime, str(model), str(picture)]
            time.sleep(0.03)
            begun = perf_counter()
            done = subprocess.run(
                [*command, str(threads)],
                env=child_environment(threads),
                capture_output=True,
                text=True,
                check=True,
            )
            process_ms = 1e3 * (perf_counter() - begun)
            if number:
                found[who].append({**json.loads(done.stdout), "process_ms": process_ms})
    return {
        who: {
            **{key: statistics.median(start[key] for start in taken) for key in taken[0]},
            "starts": taken,
        }
        for who, taken in found.items()
    }


def main() -> None:
    import json
    import sys

    who, runtime, model, picture, threads = sys.argv[1:]
    imported, loaded, done = {"edgeml": edgeml, "bare": bare}[who](
        runtime, model, picture, int(threads)
    )
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    times = {
        "import_ms": 1e3 * (imported - START),
        "load_ms": 1e3 * (loaded - imported),
        "first_ms": 1e3 * (done - loaded),
        "total_ms": 1e3 * (done - START),
        "cpu_ms": 1e3 * (used.ru_utime + used.ru_stime),
    }
    print(json.dumps(times))


if __name__ == "__main__":
    main()
