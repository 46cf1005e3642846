"""A test double of TensorRT, built from the signatures of a real version.

`standin("11.4")` returns a module with exactly the classes, enums, methods and properties of
NVIDIA's wheel of that version. A call is bound to the real signature: an unknown keyword, a missing
argument, another type or enum is a TypeError, an unknown name an AttributeError. Its builder stores
the ONNX, and its engine runs it with ONNX Runtime on the memory of a `CudaStandin`. Everything else
raises NotImplementedError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.runtimes.tensorrt.cuda_standin import CudaStandin

API = Path(__file__).parents[4] / "shared" / "trt_api"

FILES = {
    "10.3": "trt_api_10.3.json",
    "10.16": "trt_api_10.16.json",
    "11.4": "trt_api_11.4.json",
    "rtx": "trt_rtx_api_1.7.1.json",
}

Implementation = dict[str, Any]
"""Implementation of a class: methods by name, properties as `get name` and `set name`."""

# The bindings' docstrings name some types as C++ does.
_IN_PYTHON = {"IParserError": "ParserError", "IBuilder": "Builder"}


class StandinState:
    """The state of a stand-in, which a test may read and set.

    Attributes:
        cuda: The GPU that engines run on; None: the module only builds.
        deserialised: The number of plans that a `Runtime` loaded.
        executions: The number of runs outside of graphs.
        alive: Engines and contexts that are not destroyed yet.
        objects: The number of loggers, builders, parsers and runtimes.
        fault: What executions log as they fail; None: they succeed.
        fault_when_recorded: The same, in the capture of a graph.
        before_build: Called with network and config when a build starts.
    """

    def __init__(self, version: str, library: str, cuda: CudaStandin | None) -> None:
        self.version, self.library, self.cuda = version, library, cuda
        self.deserialised = 0
        self.executions = 0
        self.alive = 0
        self.objects = 0
        self.fault: str | None = None
        self.fault_when_recorded: str | None = None
        self.logger: Any = None
        self.before_build: Callable[[Any, Any], None] | None = None


@cache
def api(version: str) -> dict[str, Any]:
    """Read the signatures of a version; skip the test where they are not at hand."""
    path = API / FILES[version]
    if not path.exists():
        pytest.skip(f"trt_api/{path.name} is not beside the checkout, in ../shared")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def standin(version: str, *, cuda: CudaStandin | None = None) -> ModuleType:
    """Make the module of a version: `10.3`, `10.16`, `11.4`, or `rtx` for TensorRT-RTX 1.7.1."""
    from tests.runtimes.tensorrt.standin_does import HostMemory, does

    known = api(version)
    library = "tensorrt_rtx" if version == "rtx" else "tensorrt"
    trt = ModuleType(f"standin_{library}")
    state = StandinState(known["version"], library, cuda)
    trt.__dict__.update(__version__=known["version"], __standin__=state)
    classes: dict[str, type] = {}
    for name in _bases_first(known["classes"]):
        classes[name] = _make_class(name, known["classes"][name], classes, does(name, trt))
    classes["IHostMemory"] = HostMemory
    if "Logger.Severity" in classes:
        classes["Logger.Severity"] = classes["ILogger.Severity"]  # one class under two names
    for name, made in classes.items():
        outer, _, inner = name.rpartition(".")
        setattr(classes[outer] if outer else trt, inner, made)
    for name, listed in known["constants"].items():
        if found := re.fullmatch(r"<DataType\.(\w+): \d+>", listed):
            setattr(trt, name, getattr(classes["DataType"], found[1]))
    return trt


def state_of(trt: ModuleType) -> StandinState:
    state: StandinState = trt.__standin__
    return state


def new(made: type, **hidden: Any) -> Any:
    """Make an object that Python cannot construct, as the library does."""
    built = object.__new__(made)
    object.__setattr__(built, "_hidden", hidden)
    return built


def hidden(thing: Any) -> dict[str, Any]:
    """Give what a stand-in's object keeps to itself."""
    try:
        kept: dict[str, Any] = object.__getattribute__(thing, "_hidden")
    except AttributeError:
        raise TypeError(
            f"{type(thing).__name__}.__init__() must be called when overriding __init__"
        ) from None
    return kept


def _bases_first(classes: dict[str, Any]) -> list[str]:
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or name not in classes:
            return
        for base in classes[name]["bases"]:
            add(base)
        order.append(name)

    for name in classes:
        add(name)
    return order


def _make_class(
    name: str, listed: dict[str, Any], classes: dict[str, type], done: Implementation
) -> type:
    if listed["enum"]:
        return _make_enum(name, listed)
    bases = tuple(classes[base] for base in listed["bases"] if base in classes)
    body: dict[str, Any] = {"__slots__": ("_hidden", "__weakref__") if not bases else ()}
    for method, how in listed["methods"].items():
        body[method] = _make_method(name, method, how["sigs"], classes, done)
    for prop, how in listed["properties"].items():
        body[prop] = _make_property(name, prop, how, classes, done)
    if free := done.get("__del__"):
        body["__del__"] = free
    return type(name.rpartition(".")[2], bases, body)


def _make_enum(name: str, listed: dict[str, Any]) -> type:
    """Make what pybind11's enum_ is: not Python's Enum, but with name, value, int and equality."""

    def make(cls: type, value: Any) -> Any:
        for member in cls.__dict__.values():
            if isinstance(member, cls) and int(member) == int(value):
                return member
        raise TypeError(f"{value} is not a valid {name}")

    body: dict[str, Any] = {
        "__slots__": ("_name", "_value"),
        "__new__": make,
        "name": property(lambda self: self._name),
        "value": property(lambda self: self._value),
        "__int__": lambda self: self._value,
        "__index__": lambda self: self._value,
        "__hash__": lambda self: hash(self._value),
        "__eq__": lambda self, other: type(self) is type(other) and self._value == other._value,
        "__repr__": lambda self: f"<{name}.{self._name}: {self._value}>",
    }
    made = type(name.rpartition(".")[2], (), body)
    for member, value in listed["enum"].items():
        instance: Any = object.__new__(made)
        instance._name, instance._value = member, value
        setattr(made, member, instance)
    return made


def _make_method(
    owner: str, name: str, signatures: list[str], classes: dict[str, type], done: Implementation
) -> Any:
    overloads = [_parameters(signature) for signature in signatures]
    does = done.get(name)

    def method(self: Any, *args: Any, **keywords: Any) -> Any:
        if overloads == [None]:
            raise TypeError(f"{owner}: No constructor defined!")
        bound = _bind(owner, name, overloads, classes, args, keywords)
        if name == "__init__":
            object.__setattr__(self, "_hidden", {})
            if does:
                does(self, **bound)
            return None
        hidden(self)
        if does is None:
            raise NotImplementedError(f"The stand-in does not do {owner}.{name}.")
        return does(self, **bound)

    method.__name__ = name
    return method


def _make_property(
    owner: str,
    name: str,
    listed: dict[str, Any],
    classes: dict[str, type],
    done: Implementation,
) -> property:
    def get(self: Any) -> Any:
        kept = hidden(self)
        if f"get {name}" in done:
            return done[f"get {name}"](self)
        if name not in kept:
            raise NotImplementedError(f"The stand-in does not know {owner}.{name}.")
        return kept[name]

    def set(self: Any, value: Any) -> None:
        kept = hidden(self)
        if not _is_a(value, listed["type"], classes) and not (
            value is None and listed["type"].startswith("trt.I")
        ):
            raise TypeError(f"{owner}.{name} is {listed['type']}, not {value!r}")
        kept[name] = value
        if f"set {name}" in done:
            done[f"set {name}"](self, value)

    return property(get, None if listed["readonly"] else set)


Parameter = tuple[str, str, bool]
"""Name, type, and whether it may be left out."""


def _parameters(signature: str) -> list[Parameter] | None:
    """Read `f(self: trt.A, b: int = 0) -> None` without self; None: cannot be constructed."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    if "*args" in inside:
        return None
    # Defaults like <Severity.WARNING: 2> hold a colon, types like Sequence[..., bool] a comma.
    parts = re.split(r", (?=\w+: )", re.sub(r"<[^>]*>", "DEFAULT", inside))
    parameters = []
    for part in parts:
        name, _, rest = part.partition(": ")
        kind, _, default = rest.partition(" = ")
        if name not in ("self", "arg0") or (name == "arg0" and len(parts) > 1):
            kind = f"{kind} | None" if default == "None" else kind
            parameters.append((name, kind, bool(default)))
    return parameters


def _bind(
    owner: str,
    name: str,
    overloads: Sequence[list[Parameter] | None],
    classes: dict[str, type],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
) -> dict[str, Any]:
    """Find the overload that the arguments fit, as pybind11 does."""
    for parameters in overloads:
        assert parameters is not None
        names = [parameter[0] for parameter in parameters]
        if len(args) > len(names) or set(keywords) - set(names[len(args) :]):
            continue
        given = {**dict(zip(names, args, strict=False)), **keywords}
        if all(
            _is_a(given[each], kind, classes) if each in given else optional
            for each, kind, optional in parameters
        ):
            return given
    listed = "; ".join(
        f"({', '.join(f'{each}: {kind}' for each, kind, _ in parameters or [])})"
        for parameters in overloads
    )
    raise TypeError(
        f"{owner}.{name}(): incompatible arguments {args} {keywords}; supported: {listed}"
    )


def _is_a(value: Any, kind: str, classes: dict[str, type]) -> bool:
    """Say whether pybind11 would take `value` for a parameter of this type."""
    if kind.endswith(" | None"):
        return value is None or _is_a(value, kind.removesuffix(" | None"), classes)
    if inside := re.fullmatch(r"(?:collections\.abc\.Sequence|List|list)\[(.*)\]", kind):
        return isinstance(value, (list, tuple)) and all(
            _is_a(each, inside[1], classes) for each in value
        )
    match kind:
        case "SupportsInt" | "int":
            return hasattr(value, "__int__") and not isinstance(value, (float, str))
        case "SupportsFloat" | "float":
            return hasattr(value, "__float__") and not isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "tuple" | "list":
            return type(value).__name__ == kind
        case "slice":
            return isinstance(value, slice)
        case "buffer" | "typing_extensions.Buffer":
            return _has_buffer(value)
        case "object" | "":
            return True
    last = kind.removeprefix("trt.") if kind.startswith("trt.") else kind.rpartition("::")[2]
    wanted = classes.get(_IN_PYTHON.get(last, last))
    if wanted is None:
        raise NotImplementedError(f"The stand-in knows no type {kind!r}.")
    if last == "Dims" and isinstance(value, (list, tuple)):
        return all(_is_a(each, "int", classes) for each in value)
    return isinstance(value, wanted)


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True
