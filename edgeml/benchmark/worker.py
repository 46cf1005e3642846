"""The code in the process of one model: load it, then time it on request of the parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import cv2

from edgeml.benchmark.environment import Counters, peak_rss_mb, read_counters
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.stages import Latencies, WarmUp, time_block, time_call, turns, warm_up
from edgeml.errors import EdgemlError, InferenceError
from edgeml.predict.predictor import Predictor
from edgeml.spec.model_spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What is known once a model is loaded; its attributes are those of `ModelResult`."""

    load_ms: float
    first_ms: float
    runtime: str
    precision_actual: str
    spec: ModelSpec
    opencv_threads: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """One turn of a model: its latencies, its length, and what disturbed it."""

    samples_ns: Latencies
    seconds: float
    counters: Counters


class Session:
    """One model, from loading it to the last block; each method answers one request."""

    def __init__(self, model: Path, images: Sequence[Path], plan: BenchPlan) -> None:
        self.model, self._images, self._plan = model, images, plan

    def load(self) -> LoadedModel:
        """Load the model and make the first call; time each once, as nothing repeats them."""
        plan = self._plan
        if plan.threads:
            cv2.setNumThreads(plan.threads)
        start = perf_counter()
        self._predictor = Predictor(
            self.model,
            runtime=plan.runtime,
            device=plan.device,
            threads=plan.threads,
            precision=plan.precision,
        )
        load_ms = 1e3 * (perf_counter() - start)
        self._turns = turns(self._images)
        runtime = self._predictor.runtime
        return LoadedModel(
            load_ms=load_ms,
            first_ms=time_call(self._predictor, self._images[0]) / 1e6,
            runtime=runtime.name,
            precision_actual=runtime.metadata.get("precision", "unknown"),
            spec=self._predictor.spec,
            opencv_threads=cv2.getNumThreads(),
        )

    def warm_up(self) -> WarmUp:
        """Make the calls that do not count."""
        return warm_up(self._predictor, self._images, self._plan)

    def block(self) -> Block:
        """Time one turn of this model, and count what disturbed it."""
        before, start = read_counters(), perf_counter()
        latencies = time_block(self._predictor, self._turns, self._plan.block_s)
        seconds, after = perf_counter() - start, read_counters()
        return Block(samples_ns=latencies, seconds=seconds, counters=after.since(before))

    def finish(self) -> float | None:
        """Free the model; return the peak of memory in MB."""
        peak = peak_rss_mb()
        self._predictor.close()
        return peak


def serve(connection: Connection, session: Session, log: Path) -> None:
    """Answer requests, each the name of a method of `Session`, until the parent ends.

    Output of this process, also that of native libraries, goes to the file `log`.
    """
    # Ctrl-C reaches every process of a terminal; only the parent decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        request = connection.recv()
        try:
            answer = getattr(session, request)()
        except EdgemlError as err:
            answer = err
        except Exception as err:
            text = " ".join(f"{type(err).__name__}: {err}".split())
            answer = InferenceError(f"Measuring {str(session.model)!r} failed unexpectedly: {text}")
        connection.send(answer)


def _end_with_parent() -> None:
    """End this process as soon as its parent ends, even in the middle of a call."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
