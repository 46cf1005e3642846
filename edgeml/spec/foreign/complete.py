"""From the fields that are stated and a graph to a spec, or to a list of what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeml.errors import MissingSpecError, SpecError
from edgeml.image.preprocess import Preprocess
from edgeml.spec.foreign.ending import Run, check_normalisation, end_by_run, ending_fields
from edgeml.spec.foreign.graph import End, Graph, Port
from edgeml.spec.foreign.partial import (
    ARGUMENT,
    GRAPH,
    PartialSpec,
    SpecWithSources,
    merge,
    names_of,
    spec_sources,
    stated,
)
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.provenance import Provenance
from edgeml.spec.storage import sidecar_path

DEFAULT = "default"
_DEFAULTS = stated(DEFAULT, interpolation="linear", antialias=True, crop=1.0, pad=114)
_NO_END: tuple[End, str] = ("unknown", "nothing")

_OPTIONS = {
    "output": "which output has the scores (--output NAME)",
    "activation": "what makes probabilities from the output "
    "(--activation softmax, sigmoid or none)",
    "labels": "a name for each output (--labels FILE)",
    "size": "the input's height and width (--size 224x224)",
    "resize": "how an image is brought to that size (--resize squash, crop or letterbox)",
    "mean": "the mean of each channel (--mean 0.485,0.456,0.406)",
    "std": "the deviation of each channel (--std 0.229,0.224,0.225)",
    "channels": "the colour order (--channels rgb or bgr)",
    "layout": "which axis holds the channels (--layout nchw or nhwc)",
    "task": "whether one label is right, or each for itself (--task)",
}
"""The fields that a spec needs, except that a network with one output needs no name for it."""


def complete(
    name: str, graph: Graph, fields: PartialSpec, run: Run | None = None
) -> SpecWithSources:
    """Add what a model file's graph states to what people and tools state; return the spec.

    `run` decides whether the output is probabilities where the graph does not.
    """
    image = _image_input(name, graph)
    fields = merge(_input_fields(image, fields), fields, _DEFAULTS)
    output = _scores_output(name, graph, fields)
    check_normalisation(fields.input == "uint8", graph.normalises, fields)
    if fields.input == "uint8":
        black, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        fields = merge(stated(f"{GRAPH} takes uint8", mean=black, std=one), fields)
    if output is not None:
        _check_width(name, output, fields)
        end, op = graph.ends.get(output.name, _NO_END)
        others = (one for one in _OPTIONS if one not in ("output", "activation", "task"))
        if end == "unknown" and run and all(getattr(fields, one) is not None for one in others):
            draft = merge(stated("", activation="none", task="multilabel", threshold=0), fields)
            end = end_by_run(_spec(name, graph, draft, output).spec, run)
            op += " (decided by a run)"
        fields = merge(ending_fields(end, op, fields), fields)
    missing = [field for field in _OPTIONS if getattr(fields, field) is None]
    if output is not None and "output" in missing:
        missing.remove("output")
    if "activation" in missing and "task" in missing:
        missing.remove("task")  # follows from the activation
    if missing:
        raise MissingSpecError(_missing_message(name, missing, graph, output))
    return _spec(name, graph, fields, output)


def _missing_message(name: str, missing: Sequence[str], graph: Graph, output: Port | None) -> str:
    texts = {field: _OPTIONS[field] for field in missing}
    if "output" in texts:
        texts["output"] += f": {', '.join(one.name for one in graph.outputs[:12])}"
    if "activation" in texts and output is not None:
        _, op = graph.ends.get(output.name, _NO_END)
        texts["activation"] += f"; the graph ends in {op}, which does not decide it"
    wanted = "; ".join(texts.values())
    if len(missing) > 3:
        return (
            f"{name} has no labels and preprocessing that edgeml can read: no spec inside it, and "
            f"no {sidecar_path(Path(name))} next to it. Missing: {wanted}. State them once: "
            f"edgeml inspect {name} --write-spec with these options; or pass spec=ModelSpec(...)."
        )
    return (
        f"The spec of {name} is incomplete. Missing: {wanted}. "
        f"State it once: edgeml inspect {name} --write-spec with these options."
    )


def _image_input(name: str, graph: Graph) -> Port:
    """Return the only input, which takes images."""
    if len(graph.inputs) != 1:
        names = ", ".join(one.name for one in graph.inputs) or "none"
        raise SpecError(f"{name} has the inputs {names}; edgeml runs networks with one.")
    image = graph.inputs[0]
    if image.shape is not None and len(image.shape) != 4:
        raise SpecError(
            f"The input {image.name!r} of {name} has the shape {_shape_text(image)}: images have "
            "four dimensions, (N, 3, H, W) or (N, H, W, 3)."
        )
    if image.dtype not in ("float32", "float16", "uint8"):
        raise SpecError(
            f"The input {image.name!r} of {name} is {image.dtype}; edgeml supports float32, "
            "float16 and uint8."
        )
    return image


def _shape_text(port: Port) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in port.shape or ()) + ")"


def _input_fields(image: Port, fields: PartialSpec) -> PartialSpec:
    """Return what the input states and wins: its type, layout and size."""
    sides = image.shape or (None,) * 4
    layouts = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if sides[axis] == 3]
    if None not in (sides[1], sides[3]) and not layouts:
        raise SpecError(
            f"The input {image.name!r} has the shape {_shape_text(image)}: edgeml has three "
            "channels."
        )
    own = stated(GRAPH, input=image.dtype, layout=layouts[0] if len(layouts) == 1 else None)
    other_layout = own.layout and fields.layout not in (None, own.layout)
    if other_layout and fields.sources["layout"] == ARGUMENT:
        raise SpecError(
            f"The layout is stated as {fields.layout}; the graph takes {_shape_text(image)}."
        )
    layout = own.layout or fields.layout
    rows = 1 if layout == "nhwc" else 2
    size = sides[rows : rows + 2]
    if layout is None or None in size or fields.size == size:
        return own
    if fields.size is not None:
        source = fields.sources["size"]
        if source == ARGUMENT:
            raise SpecError(f"The size is stated as {fields.size}; the graph takes {size}.")
        if fields.crop is not None and fields.sources["crop"] != ARGUMENT:
            raise SpecError(
                f"{source} is {fields.size}, but the graph takes {size}: these files do not "
                "belong together. State it: --size, --resize, --crop."
            )
    return merge(own, stated(GRAPH, size=size))


def _scores_output(name: str, graph: Graph, fields: PartialSpec) -> Port | None:
    """Return the output with the scores; None if there are several and none is named."""
    by_name = {one.name: one for one in graph.outputs}
    if fields.output is None:
        return graph.outputs[0] if len(by_name) == 1 else None
    if fields.output not in by_name:
        raise SpecError(f"{name} has no output {fields.output!r}; it has {', '.join(by_name)}.")
    return by_name[fields.output]


def _check_width(name: str, output: Port, fields: PartialSpec) -> None:
    """Refuse an output that does not have one column for each label."""
    if output.shape is None or fields.labels is None:
        return
    wide = [side for side in output.shape[1:] if side != 1] or [1]
    if len(wide) > 1:
        raise SpecError(
            f"The output {output.name!r} of {name} has the shape {_shape_text(output)}; a "
            "classifier has (N, labels)."
        )
    width, count = wide[0], len(fields.labels)
    if width not in (None, count):
        raise SpecError(
            f"There are {count} labels ({fields.sources['labels']}), but the output "
            f"{output.name!r} of {name} has {width} columns."
        )


def _spec(name: str, graph: Graph, fields: PartialSpec, output: Port | None) -> SpecWithSources:
    """Return the spec of fields that are complete."""
    values, sources = fields.values(), dict(fields.sources)
    labels = tuple(values["labels"])
    threshold = values.pop("threshold", 0.5 if fields.task == "multilabel" else 0.0)
    sources["thresholds"] = sources.pop("threshold", DEFAULT)
    if fields.input == "uint8":
        values |= {"raw_channels": values["channels"], "channels": "rgb"}
        sources |= {"raw_channels": sources["channels"], "channels": DEFAULT}
    if output is not None and len(graph.outputs) > 1:
        values["output"] = output.name
        sources.setdefault("output", GRAPH)
    else:
        values.pop("output", None)
        sources.pop("output", None)
    frame = {field: values.pop(field) for field in names_of(Preprocess) if field in values}
    frame["size"] = tuple(frame["size"])
    values |= {"labels": labels, "thresholds": (threshold,) * len(labels)}
    try:
        spec = ModelSpec(
            preprocess=Preprocess(**frame),
            precision=graph.precision,
            provenance=Provenance(
                model=name, notes={"producer": graph.producer} if graph.producer else {}
            ),
            **values,
        )
    except SpecError as err:
        raise SpecError(f"The fields of {name} do not fit together: {err}") from err
    sources["precision"] = GRAPH
    return SpecWithSources(spec=spec, sources=spec_sources(DEFAULT, sources))
