"""What the classes of the stand-in do; `standin.py` holds them to the real signatures."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from tests.runtimes.tensorrt.standin import Implementation, StandinState, hidden, new, state_of

MAGIC = b"a plan of the stand-in\n"

_TYPES = {"float32": "FLOAT", "float16": "HALF", "uint8": "UINT8", "int8": "INT8", "int64": "INT64"}
_NUMPY = {name: dtype for dtype, name in _TYPES.items()}


class HostMemory(bytes):
    """IHostMemory: a buffer with `nbytes`, and nothing else that bytes have."""

    def __getattribute__(self, name: str) -> Any:
        if name == "nbytes":
            return bytes.__len__(self)
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise AttributeError(f"'IHostMemory' object has no attribute {name!r}")

    def __len__(self) -> int:
        raise TypeError("object of type 'IHostMemory' has no len()")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("'IHostMemory' object is not subscriptable")


def does(name: str, trt: ModuleType) -> Implementation:
    """Give the implementation of a class; nothing for what the stand-in does not do."""
    make = _CLASSES.get(name)
    return make(trt, state_of(trt)) if make else {}


def pack(header: dict[str, Any], model: bytes) -> bytes:
    """Write a plan."""
    return MAGIC + json.dumps(header).encode() + b"\n" + model


def unpack(plan: bytes) -> tuple[dict[str, Any], bytes]:
    """Read a plan back.

    Raises:
        ValueError: It is none.
    """
    if not plan.startswith(MAGIC):
        raise ValueError("not a plan")
    header, _, model = plan[len(MAGIC) :].partition(b"\n")
    return json.loads(header), model


def _log(trt: Any, severity: str, text: str) -> None:
    logger = state_of(trt).logger
    logger.log(getattr(trt.ILogger.Severity, severity), text)


def _the_one_logger(state: StandinState, logger: Any) -> None:
    hidden(logger)  # its base class was initialised
    state.objects += 1
    assert state.logger in (None, logger), "another logger than the first, which is ignored"
    state.logger = logger


def _logger(trt: Any, state: StandinState) -> Implementation:
    def init(self: Any, min_severity: Any = None) -> None:
        hidden(self)["min_severity"] = min_severity or trt.ILogger.Severity.WARNING

    return {"__init__": init, "log": lambda self, severity, msg: None}


def _dims(trt: Any, state: StandinState) -> Implementation:
    def init(self: Any, shape: Any = ()) -> None:
        hidden(self)["sides"] = tuple(int(side) for side in shape)

    return {
        "__init__": init,
        "__len__": lambda self: len(hidden(self)["sides"]),
        "__getitem__": lambda self, arg0: hidden(self)["sides"][arg0],
    }


def _builder(trt: Any, state: StandinState) -> Implementation:
    def init(self: Any, logger: Any) -> None:
        needs_gpu = state.library == "tensorrt"  # TensorRT-RTX builds without one
        if needs_gpu and state.cuda and not state.cuda.counted:
            raise AssertionError("a Builder before the GPUs were counted")
        _the_one_logger(state, logger)
        hidden(self)["on"] = state.cuda and state.cuda.here  # it stays with that GPU

    def create_network(self: Any, flags: Any = 0) -> Any:
        kinds = trt.NetworkDefinitionCreationFlag
        strong = bool(int(flags) & 1 << int(kinds.STRONGLY_TYPED)) or not state.version.startswith(
            "10."
        )
        return new(trt.INetworkDefinition, strong=strong, model=None, flags=int(flags))

    def build(self: Any, network: Any, config: Any, kernel_text: Any = None) -> Any:
        if state.before_build:
            state.before_build(network, config)
        return _build(trt, state, network, config, on=hidden(self)["on"])

    return {
        "__init__": init,
        "create_network": create_network,
        "create_builder_config": lambda self: new(trt.IBuilderConfig, **_config_of(trt, state)),
        "create_optimization_profile": lambda self: new(trt.IOptimizationProfile, shapes={}),
        "build_serialized_network": build,
    }


def _build(trt: Any, state: StandinState, network: Any, config: Any, *, on: str | None) -> Any:
    """Keep the ONNX, if a real builder would have built it; None and an error in the log if not."""
    inside, settings = hidden(network), hidden(config)
    assert inside["strong"], "a network that is not strongly typed"
    model = inside["model"]
    if model is None:
        _log(trt, "ERROR", "Network must have at least one output")
        return None
    profiles = settings["profiles"]
    for name, _, shape in _tensors(model.graph.input):
        if None in shape and not (profiles and name in profiles[0]):
            text = f"Network has dynamic or shape inputs, but no optimization profile: {name}"
            _log(trt, "ERROR", text)
            return None
    if not _monitored(settings["progress_monitor"], len(model.graph.node)):
        _log(trt, "ERROR", "Error Code 15: Build Canceled by the progress monitor")
        return None
    for node in model.graph.node:
        _log(trt, "VERBOSE", f"Layer: {node.name} ({node.op_type})")
    if settings["timing_cache"] is not None:
        hidden(settings["timing_cache"])["entries"].append(model.graph.name)
    header = {
        "library": state.library,
        "version": state.version,
        "gpu": state.cuda and state.cuda._capability,
        "on": on,
        "profile": profiles[0] if profiles else {},
        "flags": settings["flags"],
        "verbosity": settings["profiling_verbosity"].name,
        "capabilities": [each.name for each in settings.get("capabilities", [])],
    }
    return HostMemory(pack(header, model.SerializeToString()))


def _monitored(monitor: Any, steps: int) -> bool:
    """Report a build to a progress monitor; False if it cancelled."""
    if monitor is None:
        return True
    hidden(monitor)
    try:
        monitor.phase_start("Building Engine", None, steps)
        for step in range(steps):
            go_on = monitor.step_complete("Building Engine", step)
            assert isinstance(go_on, bool), "step_complete gave no bool"
            if not go_on:
                return False
        monitor.phase_finish("Building Engine")
    except BaseException as err:
        raise AssertionError("an exception left a callback, which ends the process") from err
    return True


def _config_of(trt: Any, state: StandinState) -> dict[str, Any]:
    return {
        "flags": 1 << int(trt.BuilderFlag.TF32) if state.library == "tensorrt" else 0,
        "profiles": [],
        "pools": {},
        "timing_cache": None,
        "progress_monitor": None,
        "builder_optimization_level": 3,
        "profiling_verbosity": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
        "hardware_compatibility_level": trt.HardwareCompatibilityLevel.NONE,
    }


def _config(trt: Any, state: StandinState) -> Implementation:
    def set_flag(self: Any, flag: Any) -> None:
        hidden(self)["flags"] |= 1 << int(flag)

    def clear_flag(self: Any, flag: Any) -> None:
        hidden(self)["flags"] &= ~(1 << int(flag))

    def add_profile(self: Any, profile: Any) -> int:
        shapes = hidden(profile)["shapes"]
        if not shapes:
            _log(trt, "ERROR", "the optimization profile is empty")
            return -1
        hidden(self)["profiles"].append(shapes)
        return len(hidden(self)["profiles"]) - 1

    def set_pool(self: Any, pool: Any, pool_size: Any) -> None:
        hidden(self)["pools"][pool] = int(pool_size)

    def create_cache(self: Any, serialized_timing_cache: Any) -> Any:
        kept = bytes(serialized_timing_cache)
        return new(trt.ITimingCache, entries=json.loads(kept) if kept else [])

    def set_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        hidden(self)["timing_cache"] = cache
        return True

    def set_count(self: Any, count: int) -> None:
        hidden(self)["capabilities"] = [trt.ComputeCapability.NONE] * count

    def set_capability(self: Any, compute_capability: Any, index: Any) -> bool:
        hidden(self)["capabilities"][index] = compute_capability
        return True

    return {
        "set_flag": set_flag,
        "clear_flag": clear_flag,
        "get_flag": lambda self, flag: bool(hidden(self)["flags"] >> int(flag) & 1),
        "add_optimization_profile": add_profile,
        "get num_optimization_profiles": lambda self: len(hidden(self)["profiles"]),
        "set_memory_pool_limit": set_pool,
        "get_memory_pool_limit": lambda self, pool: hidden(self)["pools"].get(pool, 1 << 34),
        "create_timing_cache": create_cache,
        "set_timing_cache": set_cache,
        "get_timing_cache": lambda self: hidden(self)["timing_cache"],
        "set num_compute_capabilities": set_count,
        "set_compute_capability": set_capability,
        "get_compute_capability": lambda self, index: hidden(self)["capabilities"][index],
    }


def _timing_cache(trt: Any, state: StandinState) -> Implementation:
    def combine(self: Any, input_cache: Any, ignore_mismatch: bool) -> bool:
        hidden(self)["entries"] += hidden(input_cache)["entries"]
        return True

    return {
        "combine": combine,
        "serialize": lambda self: HostMemory(json.dumps(hidden(self)["entries"]).encode()),
    }


def _profile(trt: Any, state: StandinState) -> Implementation:
    def set_shape(self: Any, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = [list(map(int, shape)) for shape in (min, opt, max)]
        if not all(0 <= a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError(f"{input}: not min <= opt <= max: {shapes}")
        hidden(self)["shapes"][input] = shapes

    def get_shape(self: Any, input: str) -> list[Any]:
        return [trt.Dims(shape) for shape in hidden(self)["shapes"][input]]

    return {"set_shape": set_shape, "get_shape": get_shape}


def _network(trt: Any, state: StandinState) -> Implementation:
    def tensors(self: Any, which: str) -> list[Any]:
        model = hidden(self)["model"]
        found = _tensors(getattr(model.graph, which)) if model else []
        return [
            new(
                trt.ITensor,
                name=name,
                dtype=getattr(trt.DataType, _TYPES[dtype]),
                shape=trt.Dims([-1 if side is None else side for side in shape]),
                is_network_input=which == "input",
                is_network_output=which == "output",
            )
            for name, dtype, shape in found
        ]

    def layers(self: Any) -> list[Any]:
        model = hidden(self)["model"]
        return [new(trt.ILayer, name=node.name) for node in model.graph.node] if model else []

    return {
        "get num_inputs": lambda self: len(tensors(self, "input")),
        "get num_outputs": lambda self: len(tensors(self, "output")),
        "get num_layers": lambda self: len(layers(self)),
        "get_input": lambda self, index: tensors(self, "input")[index],
        "get_output": lambda self, index: tensors(self, "output")[index],
        "get_layer": lambda self, index: layers(self)[index],
        "get_flag": lambda self, flag: bool(hidden(self)["flags"] >> int(flag) & 1),
    }


def _parser(trt: Any, state: StandinState) -> Implementation:
    def init(self: Any, network: Any, logger: Any) -> None:
        _the_one_logger(state, logger)
        hidden(self).update(network=network, errors=[], flags=0)

    def failed(self: Any, code: str, desc: str, node: str = "") -> bool:
        fields = {"code": getattr(trt.ErrorCode, code), "desc": desc, "node_name": node}
        hidden(self)["errors"].append(new(trt.ParserError, **fields))
        _log(trt, "ERROR", desc)
        return False

    def parse(self: Any, load: Callable[[], onnx.ModelProto]) -> bool:
        try:
            model = load()
            ort.InferenceSession(model.SerializeToString(), _options())
        except FileNotFoundError as err:
            return failed(self, "MODEL_DESERIALIZE_FAILED", f"Failed to open: {err.filename}")
        except Exception as err:  # of protobuf and of ONNX Runtime, which share no base
            return failed(self, "INVALID_GRAPH", " ".join(str(err).split()))
        hidden(hidden(self)["network"])["model"] = model
        return True

    def set_flag(self: Any, flag: Any) -> None:
        hidden(self)["flags"] |= 1 << int(flag)

    return {
        "__init__": init,
        "parse_from_file": lambda self, model: parse(self, lambda: onnx.load(model)),
        "parse": lambda self, model, path=None: parse(self, lambda: _from_bytes(model)),
        "get num_errors": lambda self: len(hidden(self)["errors"]),
        "get_error": lambda self, index: hidden(self)["errors"][index],
        "clear_errors": lambda self: hidden(self)["errors"].clear(),
        "set_flag": set_flag,
        "get_flag": lambda self, flag: bool(hidden(self)["flags"] >> int(flag) & 1),
    }


def _from_bytes(model: Any) -> onnx.ModelProto:
    return onnx.load_model_from_string(bytes(model))


def _parser_error(trt: Any, state: StandinState) -> Implementation:
    return {
        "code": lambda self: hidden(self)["code"],
        "desc": lambda self: hidden(self)["desc"],
        "node": lambda self: -1,
        "node_name": lambda self: hidden(self)["node_name"],
        "node_operator": lambda self: "",
        "file": lambda self: "standin.cpp",
        "func": lambda self: "parse",
        "line": lambda self: 1,
    }


def _runtime(trt: Any, state: StandinState) -> Implementation:
    def init(self: Any, logger: Any) -> None:
        gpu = state.cuda
        if gpu is None or not gpu.counted or not gpu._count:
            raise AssertionError("a Runtime before the GPUs were counted, or without one")
        _the_one_logger(state, logger)
        hidden(self)["engine_host_code_allowed"] = False

    def deserialize(self: Any, serialized_engine: Any) -> Any:
        state.deserialised += 1
        try:
            header, model = unpack(bytes(serialized_engine))
        except ValueError:
            _log(trt, "ERROR", "Serialization assertion magicTagRead == kMAGIC_TAG failed.")
            return None
        if (header["library"], header["version"]) != (state.library, state.version):
            _log(trt, "ERROR", "The engine plan file is not compatible with this version.")
            return None
        session = ort.InferenceSession(model, _options())
        assert state.cuda
        state.alive += 1
        return new(
            trt.ICudaEngine,
            header=header,
            model=onnx.load_model_from_string(model),
            session=session,
            free=state.cuda.hold(len(model)),
        )

    return {"__init__": init, "deserialize_cuda_engine": deserialize}


def _engine(trt: Any, state: StandinState) -> Implementation:
    def tensors(self: Any) -> list[tuple[str, str, tuple[int | None, ...], bool]]:
        graph = hidden(self)["model"].graph
        return [(*each, True) for each in _tensors(graph.input)] + [
            (*each, False) for each in _tensors(graph.output)
        ]

    def named(self: Any, name: str) -> tuple[str, str, tuple[int | None, ...], bool]:
        found = [each for each in tensors(self) if each[0] == name]
        if not found:
            _log(trt, "ERROR", f"Given invalid tensor name: {name}")
            return (name, "float32", (), False)
        return found[0]

    def mode(self: Any, name: str) -> Any:
        modes = trt.TensorIOMode
        if name not in [each[0] for each in tensors(self)]:
            return modes.NONE
        return modes.INPUT if named(self, name)[3] else modes.OUTPUT

    def context(self: Any, strategy: Any = None, runtime_config: Any = None) -> Any:
        assert state.cuda
        try:
            free = state.cuda.hold(4096)
        except MemoryError:
            _log(trt, "ERROR", "Requested amount of GPU memory could not be allocated.")
            return None
        state.alive += 1
        return new(
            trt.IExecutionContext,
            engine=self,
            shapes={},
            addresses={},
            ran=None,
            generation=0,
            busy=threading.Lock(),
            free=free,
        )

    return {
        "__del__": _freed(state),
        "get num_io_tensors": lambda self: len(tensors(self)),
        "get num_optimization_profiles": lambda self: 1,
        "get num_layers": lambda self: len(hidden(self)["model"].graph.node),
        "get_tensor_name": lambda self, index: tensors(self)[index][0],
        "__getitem__": lambda self, arg0: tensors(self)[arg0][0],
        "get_tensor_mode": mode,
        "get_tensor_dtype": lambda self, name: getattr(trt.DataType, _TYPES[named(self, name)[1]]),
        "get_tensor_shape": lambda self, name: trt.Dims(
            [-1 if side is None else side for side in named(self, name)[2]]
        ),
        "get_tensor_location": lambda self, name: trt.TensorLocation.DEVICE,
        "get_tensor_profile_shape": lambda self, name, profile_index: [
            trt.Dims(shape) for shape in hidden(self)["header"]["profile"][name]
        ],
        "create_execution_context": context,
        "create_runtime_config": lambda self: new(trt.IRuntimeConfig),
        "create_engine_inspector": lambda self: new(trt.EngineInspector, engine=self),
        "get device_memory_size_v2": lambda self: 4096,
    }


def _inspector(trt: Any, state: StandinState) -> Implementation:
    def information(self: Any, format: Any) -> str:
        header = hidden(hidden(self)["engine"])["header"]
        nodes = hidden(hidden(self)["engine"])["model"].graph.node
        if header["verbosity"] != "DETAILED":
            return json.dumps({"Layers": [node.name for node in nodes]})
        layers = [{"Name": node.name, "LayerType": node.op_type} for node in nodes]
        return json.dumps({"Layers": layers})

    return {"get_engine_information": information}


def _freed(state: StandinState) -> Callable[[Any], None]:
    def delete(self: Any) -> None:
        kept = getattr(self, "_hidden", {})
        if free := kept.pop("free", None):
            state.alive -= 1
            free()

    return delete


def _context(trt: Any, state: StandinState) -> Implementation:
    def set_input_shape(self: Any, name: str, shape: Any) -> bool:
        kept = hidden(self)
        wanted = [int(side) for side in shape]
        known = {each: sides for each, _, sides in _tensors(model_of(self).graph.input)}
        least, _, most = hidden(kept["engine"])["header"]["profile"].get(
            name, [known.get(name)] * 3
        )
        if name not in known or not all(
            low <= side <= high for low, side, high in zip(least, wanted, most, strict=True)
        ):
            _log(
                trt,
                "ERROR",
                f"Set dimension {wanted} for tensor {name} does not satisfy any profile",
            )
            return False
        if kept["shapes"].get(name) != wanted:
            kept["generation"] += 1
        kept["shapes"][name] = wanted
        return True

    def model_of(self: Any) -> onnx.ModelProto:
        model: onnx.ModelProto = hidden(hidden(self)["engine"])["model"]
        return model

    def set_address(self: Any, name: str, memory: Any) -> bool:
        hidden(self)["addresses"][name] = int(memory)
        hidden(self)["generation"] += 1
        return True

    def shape_of(self: Any, name: str) -> tuple[int, ...]:
        kept = hidden(self)
        graph = model_of(self).graph
        if name in kept["shapes"]:
            return tuple(kept["shapes"][name])
        batch = next(iter(kept["shapes"].values()), [-1])[0]
        tensors = {each: sides for each, _, sides in _tensors([*graph.input, *graph.output])}
        return tuple(batch if side is None else side for side in tensors[name])

    def execute(self: Any, stream_handle: Any) -> bool:
        kept = hidden(self)
        assert kept["busy"].acquire(blocking=False), "one context was used by two threads at once"
        try:
            return enqueue(self, int(stream_handle))
        finally:
            kept["busy"].release()

    def enqueue(self: Any, stream: int) -> bool:
        kept = hidden(self)
        cuda = state.cuda
        assert cuda
        assert stream, "the default stream, which everything waits for"
        captured = cuda.is_capturing(stream)
        if fault := (state.fault or (state.fault_when_recorded if captured else None)):
            _log(trt, "ERROR", fault)
            return False
        graph = model_of(self).graph
        plan = [
            (name, dtype, shape_of(self, name), kept["addresses"].get(name))
            for name, dtype, _ in _tensors([*graph.input, *graph.output])
        ]
        if any(-1 in shape or not address for _, _, shape, address in plan):
            _log(trt, "ERROR", "Error Code 3: API Usage Error (a shape or an address is not set)")
            return False
        if captured and kept["ran"] != kept["shapes"]:
            _log(
                trt, "ERROR", "enqueueV3 must be called once after a change of shape, then captured"
            )
            return False
        kept["ran"] = dict(kept["shapes"])
        cuda.enqueue(stream, _kernel(state, weakref.ref(self), kept["generation"], plan, captured))
        return True

    return {
        "__del__": _freed(state),
        "set_input_shape": set_input_shape,
        "set_tensor_address": set_address,
        "get_tensor_address": lambda self, name: hidden(self)["addresses"].get(name, 0),
        "get_tensor_shape": lambda self, name: trt.Dims(shape_of(self, name)),
        "infer_shapes": lambda self: [
            name
            for name, _, _ in _tensors(model_of(self).graph.input)
            if -1 in shape_of(self, name)
        ],
        "execute_async_v3": execute,
        "get active_optimization_profile": lambda self: 0,
    }


def _kernel(
    state: StandinState, context: Any, generation: int, plan: list[Any], captured: bool
) -> Callable[[], None]:
    """Give what runs when the stream comes to it: in a graph, perhaps many times."""

    def run() -> None:
        alive = context()
        assert alive is not None, "the context was destroyed before its work was done"
        if captured:
            assert hidden(alive)["generation"] == generation, "a context changed after its capture"
        else:
            state.executions += 1
        inside = hidden(hidden(alive)["engine"])
        inputs = {each.name for each in inside["model"].graph.input}
        views = {
            name: state.cuda.device_view(address, np.dtype(dtype).itemsize * int(np.prod(shape)))
            .view(dtype)
            .reshape(shape)
            for name, dtype, shape, address in plan
        }
        outputs = [name for name in views if name not in inputs]
        feeds = {name: views[name].copy() for name in views if name in inputs}
        results = inside["session"].run(outputs, feeds)
        for name, result in zip(outputs, results, strict=True):
            views[name][...] = result

    return run


def _options() -> ort.SessionOptions:
    """Compute what edgeml's own runtime computes for a file that is laid out for TensorRT."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_session_config_entry(
        "optimization.disable_specified_optimizers", "WeightBiasQuantization"
    )
    return options


def _tensors(values: Any) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """Read name, dtype and shape of a graph's inputs or outputs."""
    found = []
    for value in values:
        kind = value.type.tensor_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        shape = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
        found.append((value.name, dtype, tuple(shape)))
    return found


_CLASSES: dict[str, Callable[[Any, StandinState], Implementation]] = {
    "Logger": _logger,
    "ILogger": lambda trt, state: {"log": lambda self, severity, msg: None},
    "IProgressMonitor": lambda trt, state: {},
    "Dims": _dims,
    "Builder": _builder,
    "IBuilderConfig": _config,
    "ITimingCache": _timing_cache,
    "IOptimizationProfile": _profile,
    "INetworkDefinition": _network,
    "OnnxParser": _parser,
    "ParserError": _parser_error,
    "Runtime": _runtime,
    "ICudaEngine": _engine,
    "EngineInspector": _inspector,
    "IExecutionContext": _context,
}
