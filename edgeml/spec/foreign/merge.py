"""Specs of models that edgeml did not make: from what stands in the file, beside it, and is said.

What the graph, the file's metadata and the tool's own files tell is put together, each fact with
its source; what a person says wins. Nothing is guessed: what nobody tells is an error that lists
it, with the option that says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from edgeml.errors import MissingSpecError, ModelLoadError, SpecError
from edgeml.image.filters import Interpolation
from edgeml.image.preprocess import Preprocess, Resize
from edgeml.spec.foreign import hugging_face, model_api, timm_hub, ultralytics
from edgeml.spec.foreign.endings import Graph, Port
from edgeml.spec.foreign.read_graph import read_graph
from edgeml.spec.foreign.values import Fact, Facts, read_json
from edgeml.spec.model_spec import Activation, Layout, ModelSpec, Task
from edgeml.spec.provenance import Provenance
from edgeml.spec.storage import find_spec_and_source, sidecar_path

GRAPH = "the graph"
DEFAULT = "default"
ARGUMENT = "argument"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a person says of a model; None leaves it to the files.

    Attributes:
        labels: One name for each output.
        threshold: One for all labels.
        size: (height, width).
        mean, std: Of three channels on a scale of 0 to 1, in the order of `channels`.
        activation: What is applied to the output: `none` if the graph ends in it.
        output: Which of several.
        like: A member of one of torchvision's enums of weights, whose transforms are taken.

    The others are those of `Preprocess` and `ModelSpec`.
    """

    labels: Sequence[str] | None = None
    threshold: float | None = None
    task: Task | None = None
    activation: Activation | None = None
    output: str | None = None
    layout: Layout | None = None
    size: tuple[int, int] | None = None
    resize: Resize | None = None
    crop: float | None = None
    pad: int | None = None
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: Literal["rgb", "bgr"] | None = None
    like: Any = None

    def facts(self) -> Facts:
        """Give what was said."""
        return {
            one.name: (getattr(self, one.name), ARGUMENT)
            for one in fields(self)
            if one.name != "like" and getattr(self, one.name) is not None
        }


NOTHING = Said()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a model means, and where each part of that was found.

    Attributes:
        spec: The spec.
        sources: For each field of the spec and its preprocess, in words.
    """

    spec: ModelSpec
    sources: Mapping[str, str]


def spec_for(model: Path, said: Said = NOTHING) -> Reading:
    """Put together what a model file means.

    A spec of edgeml's own, beside the file or inside it, is taken first; then what Ultralytics,
    model_api, Hugging Face or timm wrote; then the graph. What is `said` wins over all of them.

    Args:
        model: An .onnx or .xml file, or a folder with one and its config.json or metadata.yaml.
        said: What a person adds.

    Raises:
        MissingSpecError: Facts are missing; lists them, and how each can be said.
        SpecError: Facts contradict each other, or something is wanted that edgeml does not do.
        ModelLoadError: The file cannot be read, or is damaged.
    """
    path = model_file(model)
    graph = read_graph(path)
    own = find_spec_and_source(path, graph.metadata)
    if own is not None:
        return _changed(*own, said)
    told = timm_hub.torchvision(said.like) if said.like is not None else {}
    wanted = said.facts()
    try:
        found = _tools_facts(path, graph)
    except SpecError:
        # What cannot be used is no harm where somebody says all that matters.
        if not {"labels", "resize", "mean", "std", "activation"} <= set(told | wanted):
            raise
        found = {}
    return _put_together(path.name, graph, found | told | wanted)


def model_file(model: Path) -> Path:
    """Give the model file in a folder of another tool; anything else as it is.

    A run folder of edgeml has neither a config.json nor a metadata.yaml.

    Raises:
        ModelLoadError: There are several model files in it, or none.
    """
    names = ("config.json", "metadata.yaml")
    if not model.is_dir() or not any((model / name).is_file() for name in names):
        return model
    found = sorted(p for pattern in ("*.onnx", "*.xml") for p in model.glob(pattern))
    usual = [path for path in found if path.name in ("model.onnx", "openvino_model.xml")]
    for candidates in (usual, found):
        if len(candidates) == 1:
            return candidates[0]
    if not found and (model / "model.safetensors").exists():
        raise ModelLoadError(
            f"The folder {str(model)!r} has weights but no .onnx or .xml file: export it first, "
            "with Optimum for example."
        )
    if not found:
        raise ModelLoadError(f"The folder {str(model)!r} has no .onnx or .xml file.")
    raise ModelLoadError(
        f"The folder {str(model)!r} has several models: {', '.join(p.name for p in found)}. "
        "Name the file."
    )


def _changed(spec: ModelSpec, source: str, said: Said) -> Reading:
    """Change a spec of edgeml's own by what was said."""
    from dataclasses import replace

    facts = {name: value for name, (value, _) in said.facts().items()}
    if said.like is not None:
        facts = {
            name: value for name, (value, _) in timm_hub.torchvision(said.like).items()
        } | facts
    sources = spec_sources(source) | dict.fromkeys(facts, ARGUMENT)
    sources.pop("threshold", None)
    if "labels" in facts:
        facts["labels"] = tuple(facts["labels"])
    if (threshold := facts.pop("threshold", None)) is not None:
        facts["thresholds"] = (threshold,) * len(facts.get("labels", spec.labels))
        sources["thresholds"] = ARGUMENT
    frame = {name: facts.pop(name) for name in _names_of(Preprocess) if name in facts}
    if "channels" in frame and spec.input == "uint8":
        facts["raw_channels"] = frame.pop("channels")
    preprocess = replace(spec.preprocess, **frame)
    return Reading(spec=replace(spec, preprocess=preprocess, **facts), sources=sources)


def spec_sources(source: str) -> dict[str, str]:
    """Name one source for every field of a spec."""
    return dict.fromkeys(_field_names(), source)


def _names_of(kind: type) -> list[str]:
    return [one.name for one in fields(kind)]


def _field_names() -> list[str]:
    own = [name for name in _names_of(ModelSpec) if name != "preprocess"]
    return own + _names_of(Preprocess)


def _tools_facts(path: Path, graph: Graph) -> Facts:
    """Read what another tool wrote, in the file first, then beside it."""
    beside = path.parent
    if (beside / "metadata.yaml").is_file() and path.suffix.lower() == ".xml":
        name = "metadata.yaml"
        return ultralytics.ultralytics(ultralytics.read_simple_yaml(beside / name), name)
    if "task" in graph.metadata and "names" in graph.metadata and "imgsz" in graph.metadata:
        return ultralytics.ultralytics(graph.metadata, "in the file")
    info = {
        key.removeprefix("model_info "): value
        for key, value in graph.metadata.items()
        if key.startswith("model_info ")
    }
    if "model_type" in info:
        where = "rt_info" if path.suffix.lower() == ".xml" else "model_info in the file"
        facts = model_api.model_api(info, where)
        names = [one.name for one in graph.outputs if one.name not in _EXPLAINING]
        return facts | ({"output": (names[0], where)} if len(graph.outputs) > 1 and names else {})
    config = beside / "config.json"
    if not config.is_file():
        return {}
    told = read_json(config)
    if "pretrained_cfg" in told:
        return timm_hub.timm(told, config.name, _fixed_size(graph))
    if "architectures" not in told and "model_type" not in told:
        return {}  # somebody's own file
    processor = beside / "preprocessor_config.json"
    names_of_files = (config.name, processor.name)
    says = read_json(processor) if processor.is_file() else None
    return hugging_face.hugging_face(told, says, names_of_files)


# What model_api's classifiers give besides, to explain or to search by.
_EXPLAINING = ("saliency_map", "feature_vector")


def _put_together(name: str, graph: Graph, found: Facts) -> Reading:
    """Make a spec of the graph and of what was found and said; or say what is missing."""
    image = _image_input(name, graph)
    facts: Facts = _from_graph(image, found)
    missing: list[str] = []
    output = _output(name, graph, facts, missing)
    facts |= _meaning(name, graph, output, facts, missing) if output else {}
    if facts["input"][0] == "uint8":
        says = f"{GRAPH} takes uint8"  # and normalises it
        facts |= {"mean": ((0.0, 0.0, 0.0), says), "std": ((1.0, 1.0, 1.0), says)}
    missing += [fact for fact in _NEEDED if fact not in facts]
    if missing:
        raise MissingSpecError(_what_is_missing(name, missing, graph, output))
    if facts["input"][0] == "uint8":
        facts |= {"raw_channels": facts["channels"], "channels": ("rgb", DEFAULT)}
    return _reading(name, facts, graph, output)


_NEEDED = ("labels", "size", "resize", "mean", "std", "channels", "layout", "activation", "task")

_OPTIONS = {
    "labels": "a name for each output (--labels FILE)",
    "size": "the input's height and width (--size 224x224)",
    "resize": "how a picture is brought to that size (--resize squash, crop or letterbox)",
    "mean": "the mean of each channel (--mean 0.485,0.456,0.406)",
    "std": "the deviation of each channel (--std 0.229,0.224,0.225)",
    "channels": "the colour order (--channels rgb or bgr)",
    "layout": "where the channels stand (--layout nchw or nhwc)",
    "activation": "what makes probabilities of the output (--activation softmax, sigmoid or none)",
    "task": "whether one label of all is right, or each for itself (--task)",
    "output": "which output has the scores (--output NAME)",
}


def _what_is_missing(name: str, missing: Sequence[str], graph: Graph, output: Port | None) -> str:
    wanted = []
    for fact in dict.fromkeys(missing):
        text = _OPTIONS[fact]
        if fact == "output":
            text += f": {', '.join(one.name for one in graph.outputs)}"
        if fact == "activation" and output is not None:
            _, op = graph.ends.get(output.name, ("", "nothing"))
            text += f"; the graph ends in {op}, which does not tell"
        wanted.append(text)
    return (
        f"{name} says nothing of its labels and preprocessing, as far as edgeml can read: no spec "
        f"inside it nor beside it as {sidecar_path(Path(name))}. Missing are: {'; '.join(wanted)}. "
        f"Say them once: edgeml inspect {name} --write-spec with these options; or "
        "pass spec=ModelSpec(...)."
        if len(set(missing)) > 3
        else f"{name} does not say all that has to be known. Missing: {'; '.join(wanted)}. "
        f"Say it once: edgeml inspect {name} --write-spec with these options."
    )


def _image_input(name: str, graph: Graph) -> Port:
    """Find the input that takes pictures: the only one.

    Raises:
        SpecError: There are others, or it takes no pictures.
    """
    if len(graph.inputs) != 1:
        told = ", ".join(one.name for one in graph.inputs) or "none"
        raise SpecError(f"{name} has the inputs {told}; edgeml runs networks with one.")
    image = graph.inputs[0]
    if image.shape is not None and len(image.shape) != 4:
        raise SpecError(f"The input {image.name!r} of {name} has the shape {_shown(image)}: {_4D}.")
    if image.dtype not in ("float32", "float16", "uint8"):
        raise SpecError(
            f"The input {image.name!r} of {name} is {image.dtype}; edgeml gives float32, float16 "
            "or uint8."
        )
    return image


_4D = "pictures have four dimensions, (N, 3, H, W) or (N, H, W, 3)"


def _shown(port: Port) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in port.shape or ()) + ")"


def _from_graph(image: Port, found: Facts) -> Facts:
    """Add what the input tells: its type, layout and size.

    Raises:
        SpecError: It has other than three channels, or another layout or size than was said.
    """
    facts: Facts = dict(_DEFAULTS) | found
    facts["input"] = (image.dtype, GRAPH)
    sides = image.shape or (None,) * 4
    told = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if sides[axis] == 3]
    if len(told) == 1:
        said, where = found.get("layout", (told[0], ""))
        if where == ARGUMENT and said != told[0]:
            raise SpecError(f"The layout is said to be {said}; the graph takes {_shown(image)}.")
        facts["layout"] = (told[0], GRAPH)
    elif None not in (sides[1], sides[3]) and not told:
        raise SpecError(
            f"The input {image.name!r} has the shape {_shown(image)}: edgeml gives three channels."
        )
    if "layout" not in facts:
        return facts
    rows = 1 if facts["layout"][0] == "nhwc" else 2
    fixed = sides[rows : rows + 2]
    if None not in fixed:
        if "size" in found and tuple(found["size"][0]) != fixed and found["size"][1] == ARGUMENT:
            raise SpecError(f"The size is said to be {found['size'][0]}; the graph takes {fixed}.")
        if "size" not in found or tuple(found["size"][0]) != fixed:
            facts["size"] = (fixed, GRAPH)
            if "crop" in found and found["crop"][1] != ARGUMENT and "size" in found:
                raise SpecError(
                    f"{found['size'][1]} has {found['size'][0]}, but the graph takes {fixed}: "
                    "these files do not belong together. Say it: --size, --resize, --crop."
                )
    return facts


_DEFAULTS: Mapping[str, Fact] = {
    "interpolation": ("linear", DEFAULT),
    "antialias": (True, DEFAULT),
    "crop": (1.0, DEFAULT),
    "pad": (114, DEFAULT),
}


def _fixed_size(graph: Graph) -> tuple[int, int] | None:
    """Give (height, width) of an NCHW input, if both are fixed."""
    shape = graph.inputs[0].shape if graph.inputs else None
    if shape is None or len(shape) != 4 or shape[2] is None or shape[3] is None:
        return None
    return shape[2], shape[3]


def _output(name: str, graph: Graph, facts: Facts, missing: list[str]) -> Port | None:
    """Choose the output with the scores.

    Raises:
        SpecError: There is none of the name that was said.
    """
    by_name = {one.name: one for one in graph.outputs}
    if "output" in facts:
        wanted = facts["output"][0]
        if wanted not in by_name:
            raise SpecError(f"{name} has no output {wanted!r}; it has {', '.join(by_name)}.")
        return by_name[wanted]
    if len(by_name) == 1:
        return graph.outputs[0]
    missing.append("output")
    return None


def _meaning(
    name: str, graph: Graph, output: Port, facts: Facts, missing: list[str]
) -> dict[str, Fact]:
    """Tell logits from probabilities: by the graph's last operation, else by what was said.

    Raises:
        SpecError: An activation was said that the graph has applied already, or there is another
            number of labels than of outputs.
    """
    _check_width(name, output, facts)
    end, op = graph.ends.get(output.name, ("unknown", "nothing"))
    said = f"{GRAPH} ends in {op}"
    found: Facts = {}
    wanted = facts.get("activation")
    if end in ("softmax", "sigmoid", "log_softmax"):
        if wanted and wanted[1] == ARGUMENT and wanted[0] in ("softmax", "sigmoid"):
            raise SpecError(
                f"{said} already: applied once more, {wanted[0]} would spoil the probabilities. "
                "Leave --activation out."
            )
        # A softmax of logarithms of shares gives the shares.
        found["activation"] = ("softmax" if end == "log_softmax" else "none", said)
        found["task"] = ("multilabel" if end == "sigmoid" else "multiclass", said)
        if "task" in facts and (end == "sigmoid" or facts["task"][1] == ARGUMENT):
            found["task"] = facts["task"]
    elif wanted is None:
        missing.append("activation")
        if "task" not in facts:
            found["task"] = (None, "")  # said with the activation
    elif wanted[0] in ("softmax", "sigmoid"):
        task = "multiclass" if wanted[0] == "softmax" else "multilabel"
        found["task"] = (task, wanted[1])
    return found


def _check_width(name: str, output: Port, facts: Facts) -> None:
    if output.shape is None or "labels" not in facts:
        return
    if len(output.shape) != 2:
        raise SpecError(
            f"The output {output.name!r} of {name} has the shape {_shown(output)}; a classifier "
            "gives (N, labels)."
        )
    width, count = output.shape[1], len(facts["labels"][0])
    if width not in (None, count):
        raise SpecError(
            f"There are {count} labels ({facts['labels'][1]}), but the output {output.name!r} of "
            f"{name} has {width} columns."
        )


def _reading(name: str, facts: Facts, graph: Graph, output: Port | None) -> Reading:
    """Make the spec of facts that are complete."""
    labels = tuple(facts["labels"][0])
    several = facts["task"][0] == "multilabel"
    threshold, says = facts.pop("threshold", (0.5 if several else 0.0, DEFAULT))
    facts["precision"] = (graph.precision, GRAPH)
    if output is not None and len(graph.outputs) > 1:
        facts["output"] = (output.name, facts.get("output", (None, GRAPH))[1])
    else:
        facts.pop("output", None)
    values = {fact: value for fact, (value, _) in facts.items()}
    frame = {name: values.pop(name) for name in _names_of(Preprocess) if name in values}
    frame["size"] = tuple(frame["size"])
    values |= {"labels": labels, "thresholds": (threshold,) * len(labels)}
    try:
        spec = ModelSpec(
            preprocess=Preprocess(**frame),
            provenance=Provenance(
                model=name, notes={"producer": graph.producer} if graph.producer else {}
            ),
            **values,
        )
    except SpecError as err:
        raise SpecError(f"What was read of {name} does not fit together: {err}") from err
    sources = {fact: where for fact, (_, where) in facts.items()} | {"thresholds": says}
    return Reading(
        spec=spec,
        sources={fact: sources.get(fact, DEFAULT) for fact in _field_names()},
    )
