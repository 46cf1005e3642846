"""DOOR onnxruntime: runs .onnx files."""

from __future__ import annotations

import logging
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import EdgemlError, InferenceError, InputError, ModelLoadError, SpecError
from edgeml.runtimes.ort_graphs import ReplayedSession
from edgeml.runtimes.ort_providers import CPU, CUDA, Provider, open_session, placement, provider_for
from edgeml.runtimes.protocol import (
    DEFAULT_OPTIONS,
    FP16_ON_X86,
    RunError,
    RuntimeOptions,
    as_rows,
    check_batch,
    check_process,
    one_line,
    output_index,
    spec_inside,
    timeout_error,
)
from edgeml.runtimes.telemetry import without_telemetry
from edgeml.runtimes.watchdog import deadline
from edgeml.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from edgeml.spec.foreign.graph import Graph

with without_telemetry():
    import onnxruntime as ort

logger = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")

INT8_ON_CUDA = (
    "ONNX Runtime's CUDA provider is not made for INT8: what it computes such a file in is not "
    "known, and FP16 may be faster. For INT8 on a GPU: edgeml export MODEL.onnx --fmt trt."
)
"""By what others report, see `edgeml.runtimes.known_issues`; not measured here."""

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}

_SCORES = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)")

_IN_FLOAT = "session.disable_quant_qdq"
"""Computes Q/DQ nodes as they stand, and what is between them in float: slow, and right."""

# Only Arm has FP16 kernels. On x86 the provider casts weights up once and computes in FP32.
_ON_ARM = platform.machine().lower() in ("aarch64", "arm64")


class OrtRuntime:
    """An ONNX Runtime session. `run` may be called from several threads at once.

    Attributes:
        name: The library, its version and the device.
        input_shape: The declared shape; a symbolic dimension is None.
        metadata: The file's metadata_props, the precision and the output.
    """

    def __init__(
        self, path: Path, options: RuntimeOptions = DEFAULT_OPTIONS, *, graphs: bool = False
    ) -> None:
        """Load `path`.

        Args:
            path: An .onnx file.
            options: `device` `auto` and `cpu` are the CPU; `cuda`, `cuda:1`; or the name of an
                execution provider, built in or from an installed package `onnxruntime-ep-*`.
                `precision` `exact` forbids CUDA to round the factors of FP32 products to TF32.
                `mode` `throughput` computes each run in the thread that calls it alone.
            graphs: Record the work on a GPU once for each shape of a batch, and replay it. Calls
                from several threads then wait for each other.

        Raises:
            InputError: The device is not one that this runtime serves.
            ModelLoadError: ONNX Runtime refuses the file, or would run it somewhere else, or a
                graph cannot hold all of it.
        """
        provider = provider_for(options.device, tf32=options.precision == "fast", graphs=graphs)
        if options.timeout is not None and graphs:
            raise InputError("A graph cannot be stopped; open it without timeout.")
        settings = _session_options(options)
        session = _open(path, provider, settings)
        self._session: ort.InferenceSession | None = session
        self.name = f"onnxruntime {ort.__version__} {provider.label}"
        taken = session.get_inputs()[0]
        self._feed, self._dtype = taken.name, _DTYPES.get(taken.type, taken.type)
        shape = tuple(side if isinstance(side, int) and side > 0 else None for side in taken.shape)
        self.input_shape = cast("tuple[int | None, int, int, int]", shape)
        self._timeout = options.timeout
        # On the CPU it does survive a fork: who calls does the work of threads that are missing.
        self._process = None if provider.name == CPU else os.getpid()
        self._output = session.get_outputs()[0].name
        metadata = session.get_modelmeta().custom_metadata_map
        spec = spec_inside(metadata)
        graph = _graph_of_others(path, spec)
        stored = graph.precision if graph else spec.precision if spec else "unknown"
        half = "fp16" in (stored, spec and spec.provenance.arithmetic)
        int8 = graph.multiplies_integers if graph else stored == "int8"
        int8 = int8 and not _computes_in_float(settings)
        precision = _precision(provider, int8=int8, half=half)
        self.metadata = {**metadata, "precision": precision, "output": self._output}
        if provider.name == CPU and half and not _ON_ARM:
            logger.warning("%s: %s", path.name, FP16_ON_X86)
        if provider.name == CUDA and int8:
            logger.warning("%s: %s", path.name, INT8_ON_CUDA)
        if spec is not None and spec.output is not None:
            self.select_output(spec.output)
        self._replayed = _replayed(path, session, provider, self._output) if graphs else None

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels) float32.

        Raises:
            InputError: The batch does not fit the model.
            InferenceError: The runtime is closed, the session fails, or it took too long.
        """
        session = self._session
        if session is None:
            raise InferenceError("This model is closed; open it again.")
        if self._process is not None:
            check_process(self._process, "a GPU")
        check_batch(batch, self.input_shape, self._dtype)
        try:
            if self._replayed is not None:
                return as_rows(self._replayed.run(batch), len(batch))
            feed = {self._feed: batch}
            if self._timeout is None:
                (logits,) = session.run([self._output], feed)
            else:
                (logits,) = self._run_in_time(session, feed, self._timeout)
        except EdgemlError:
            raise
        except Exception as err:
            raise RunError(f"ONNX Runtime failed: {one_line(err)}") from err
        return as_rows(logits, len(batch))

    def _run_in_time(
        self, session: ort.InferenceSession, feed: dict[str, Any], seconds: float
    ) -> list[Any]:
        options = ort.RunOptions()

        def stop() -> None:
            options.terminate = True

        with deadline(seconds, stop) as alarm:
            try:
                return cast("list[Any]", session.run([self._output], feed, options))
            except Exception as err:
                if alarm.expired:
                    raise timeout_error(seconds) from err
                raise

    def select_output(self, name: str | None) -> None:
        """Return this output from now on; None if the model has only one.

        Raises:
            SpecError: There is no output of this name, there are several and none is named, or
                it is not a tensor.
        """
        assert self._session is not None
        outputs = self._session.get_outputs()
        output = outputs[output_index([[one.name] for one in outputs], name)]
        if output.type not in _SCORES:
            raise SpecError(
                f"The output {output.name!r} is a {output.type}, not a tensor of scores. A ZipMap, "
                "as scikit-learn's converters add, makes dictionaries of them: convert the model "
                "without (zipmap False), or name another output (edgeml inspect --output NAME)."
            )
        self._output = output.name
        self.metadata["output"] = self._output

    def close(self) -> None:
        """Free the session, and what a graph was recorded with."""
        self._session = self._replayed = None


def _open(path: Path, provider: Provider, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load a file, and load it again if it needs other settings.

    Raises:
        ModelLoadError: ONNX Runtime refuses it, or would run it somewhere else.
    """
    session = _open_as_set(path, provider, options)
    spec = spec_inside(session.get_modelmeta().custom_metadata_map)
    if not _is_for_another_runtime(spec):
        graph = _graph_of_others(path, spec)
        # With x64quantprecision, ONNX Runtime 1.32 adds a wrong one, and fails when it runs.
        if graph is None or not graph.lacks_zero_points or not _saturates():
            return session
        options.add_session_config_entry(_IN_FLOAT, "1")
        return open_session(path, options, provider)
    # ONNX Runtime would quantise what is still in float, and spoil FP16 biases (1.32).
    options.add_session_config_entry(
        "optimization.disable_specified_optimizers", "WeightBiasQuantization"
    )
    return open_session(path, options, provider)


def _open_as_set(
    path: Path, provider: Provider, options: ort.SessionOptions
) -> ort.InferenceSession:
    """Load a file; where x64quantprecision is what prevents that, compute as without it.

    With it, ONNX Runtime 1.32 can convert neither a weight that two layers share, nor signed
    operators such as QLinearConv, whose kernels it then lacks.
    """
    try:
        return open_session(path, options, provider)
    except ModelLoadError as err:
        if "Attempt to replace the existing tensor" in str(err):
            options.add_session_config_entry(_IN_FLOAT, "1")
        elif "Failed to find kernel" in str(err):
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        else:
            raise
        try:
            return open_session(path, options, provider)
        except ModelLoadError:
            raise err from None


def _computes_in_float(options: ort.SessionOptions) -> bool:
    with suppress(RuntimeError):  # it is not set
        return bool(options.get_session_config_entry(_IN_FLOAT) == "1")
    return False


def _session_options(options: RuntimeOptions) -> ort.SessionOptions:
    session = ort.SessionOptions()
    session.log_severity_level = 4  # errors are raised as well
    if threads := 1 if options.mode == "throughput" else options.threads:
        session.intra_op_num_threads = threads
    # Spinning threads take four times the CPU time as soon as anything else wants the cores.
    session.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    if _saturates():
        # Products of uint8 and uint8 instead: slower, and right. ONNX Runtime would do so with
        # VNNI too, where it halves the speed of INT8 and changes no bit.
        session.add_session_config_entry("session.x64quantprecision", "1")
    return session


def _replayed(
    path: Path, session: ort.InferenceSession, provider: Provider, output: str
) -> ReplayedSession:
    """Prepare a session for replaying, which requires that all of it runs on the GPU.

    Raises:
        ModelLoadError: A part of it runs on the CPU, or ONNX Runtime does not report where.
    """
    placed = placement(session)
    if placed is None:
        raise ModelLoadError(
            f"ONNX Runtime {ort.__version__} does not say where the nodes of {path.name!r} run; "
            "graphs need 1.24 or newer."
        )
    elsewhere = sorted({op for name, ops in placed.items() if name != provider.name for op in ops})
    if elsewhere:
        raise ModelLoadError(
            f"A graph cannot hold {path.name!r}: {', '.join(elsewhere)} run on the CPU. "
            "Open it without graphs."
        )
    on = "cuda" if provider.name == CUDA else "cpu"
    return ReplayedSession(session, output, on, int(provider.options.get("device_id", 0)))


def _is_for_another_runtime(spec: ModelSpec | None) -> bool:
    """Return whether edgeml quantised the file for OpenVINO or TensorRT."""
    quantizer = spec.provenance.quantizer if spec else None
    return quantizer is not None and quantizer.layout in ("openvino", "tensorrt")


def _graph_of_others(path: Path, spec: ModelSpec | None) -> Graph | None:
    """Return the graph of a file of another tool; None if edgeml wrote it, or it cannot be read.

    A spec next to the file is not read: other tools may have quantised the file since.
    """
    if spec is not None and (spec.precision != "int8" or spec.provenance.quantizer):
        return None
    from edgeml.spec.foreign.read_graph import read_graph

    with suppress(ModelLoadError):  # what ONNX Runtime opened and this reader does not know
        return read_graph(path)
    return None


def _precision(provider: Provider, *, int8: bool, half: bool) -> str:
    """Return what the provider computes in, which may differ from what the file is written in."""
    if provider.name == CPU:
        return "int8" if int8 else "f16" if half and _ON_ARM else "f32"
    if provider.name != CUDA or int8:
        return "unknown"
    return "f16" if half else "f32" if provider.options["use_tf32"] == "0" else "tf32"


def _saturates() -> bool:
    """Return whether pairs of uint8 x int8 products are added in 16 bits: x86 without VNNI.

    True also where the processor's flags cannot be read.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    with suppress(OSError):
        words = _CPUINFO.read_text(encoding="utf-8", errors="replace").split()
        return not {"avx512_vnni", "avx_vnni"} & set(words)
    return True
