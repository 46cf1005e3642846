"""Specs of models that edgeml did not make: from the file, the files next to it, and a person.

What the graph, the file's metadata and the tool's own files state is merged, each field with its
source; what a person states wins. Nothing is guessed: a field that no source states is an error
that names it, with the option that states it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeml.errors import ModelLoadError, SpecError
from edgeml.image.preprocess import Preprocess
from edgeml.spec.foreign.complete import complete
from edgeml.spec.foreign.ending import Run, check_activation, check_normalisation
from edgeml.spec.foreign.graph import Graph
from edgeml.spec.foreign.hugging_face import spec_of_hugging_face
from edgeml.spec.foreign.label_names import unique_names
from edgeml.spec.foreign.model_api import spec_of_model_api
from edgeml.spec.foreign.partial import (
    ARGUMENT,
    NO_OVERRIDES,
    PartialSpec,
    SpecFields,
    SpecOverrides,
    SpecWithSources,
    merge,
    names_of,
    spec_sources,
    stated,
)
from edgeml.spec.foreign.read_graph import read_graph
from edgeml.spec.foreign.timm_hub import spec_of_timm, spec_of_torchvision
from edgeml.spec.foreign.ultralytics import read_simple_yaml, spec_of_ultralytics
from edgeml.spec.foreign.values import read_json
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import find_spec

__all__ = [
    "NO_OVERRIDES", "SpecOverrides", "SpecWithSources", "model_file", "spec_for", "spec_sources",
]  # fmt: skip

_EXPLANATIONS = ("saliency_map", "feature_vector")
"""Outputs that model_api's classifiers have beside the scores."""


def spec_for(
    model: Path, overrides: SpecOverrides = NO_OVERRIDES, *, run: Run | None = None
) -> SpecWithSources:
    """Return what a model file means.

    A spec of edgeml's own, next to the file or inside it, comes first; then what Ultralytics,
    model_api, Hugging Face or timm wrote; then the graph. `overrides` win over all of them.

    Args:
        model: An .onnx or .xml file, or a folder with one and its config.json or metadata.yaml.
        overrides: What a person states.
        run: Runs the network once where the graph does not show whether it returns probabilities.

    Raises:
        MissingSpecError: Fields are missing; lists them, and the option that states each.
        SpecError: Fields contradict each other, or need something that edgeml does not do.
        ModelLoadError: The file cannot be read, or is damaged.
    """
    path = model_file(model)
    graph = read_graph(path)
    stored = find_spec(path, graph.metadata)
    if stored is not None:
        return _override(*stored, overrides, graph)
    by_person = _from_person(overrides)
    try:
        by_tool = _from_tool(path, graph)
    except SpecError:
        # A file that cannot be used does no harm if a person states all that matters.
        if not {"labels", "resize", "mean", "std", "activation"} <= by_person.sources.keys():
            raise
        by_tool = PartialSpec()
    return complete(path.name, graph, merge(by_person, by_tool), run)


def model_file(model: Path) -> Path:
    """Return the model file in a folder of another tool; anything else as it is.

    A run folder of edgeml has neither a config.json nor a metadata.yaml.

    Raises:
        ModelLoadError: There are several model files in it, or none.
    """
    names = ("config.json", "metadata.yaml")
    if not model.is_dir() or not any((model / name).is_file() for name in names):
        return model
    files = sorted(p for pattern in ("*.onnx", "*.xml") for p in model.glob(pattern))
    usual = [path for path in files if path.name in ("model.onnx", "openvino_model.xml")]
    for candidates in (usual, files):
        if len(candidates) == 1:
            return candidates[0]
    if not files and (model / "model.safetensors").exists():
        raise ModelLoadError(
            f"The folder {str(model)!r} has weights but no .onnx or .xml file: export it first, "
            "with Optimum for example."
        )
    if not files:
        raise ModelLoadError(f"The folder {str(model)!r} has no .onnx or .xml file.")
    raise ModelLoadError(
        f"The folder {str(model)!r} has several models: {', '.join(p.name for p in files[:12])}. "
        "Name the file."
    )


def _from_person(overrides: SpecOverrides) -> PartialSpec:
    values = {name: getattr(overrides, name) for name in names_of(SpecFields)}
    if overrides.labels is not None:
        values["labels"] = unique_names(list(overrides.labels), "labels")
    like = PartialSpec() if overrides.like is None else spec_of_torchvision(overrides.like)
    return merge(stated(ARGUMENT, **values), like)


def check_stored(spec: ModelSpec, source: str, graph: Graph) -> None:
    """Check that a spec with the activation `none` does not belong to a graph that ends in logits.

    Raises:
        SpecError: It does.
    """
    output = spec.output or graph.outputs[0].name
    if output in graph.ends:
        check_activation(*graph.ends[output], stated(source, activation=spec.activation))


def _override(
    spec: ModelSpec, source: str, overrides: SpecOverrides, graph: Graph
) -> SpecWithSources:
    """Replace fields of a spec of edgeml's own."""
    by_person = _from_person(overrides)
    values = by_person.values()
    if spec.activation == "none" and "activation" not in values:
        check_stored(spec, source, graph)
    output = overrides.output or spec.output or graph.outputs[0].name
    if "activation" in values and output in graph.ends:
        check_activation(*graph.ends[output], by_person)
    check_normalisation(spec.input == "uint8", "", by_person)
    if "threshold" in values:
        count = len(values.get("labels", spec.labels))
        values["thresholds"] = (values.pop("threshold"),) * count
    sources = spec_sources(source, dict.fromkeys(values, ARGUMENT))
    frame = {name: values.pop(name) for name in names_of(Preprocess) if name in values}
    if "channels" in frame and spec.input == "uint8":
        values["raw_channels"] = frame.pop("channels")
    preprocess = replace(spec.preprocess, **frame)
    return SpecWithSources(spec=replace(spec, preprocess=preprocess, **values), sources=sources)


def _from_tool(path: Path, graph: Graph) -> PartialSpec:
    """Read what another tool wrote, in the file first, then next to it."""
    folder, metadata = path.parent, graph.metadata
    if (folder / "metadata.yaml").is_file() and path.suffix.lower() == ".xml":
        return spec_of_ultralytics(read_simple_yaml(folder / "metadata.yaml"), "metadata.yaml")
    if "task" in metadata and "names" in metadata and "imgsz" in metadata:
        return spec_of_ultralytics(metadata, "in the file")
    info = {
        key.removeprefix("model_info "): value
        for key, value in metadata.items()
        if key.startswith("model_info ")
    }
    if "model_type" in info:
        source = "rt_info" if path.suffix.lower() == ".xml" else "model_info in the file"
        scores = [one.name for one in graph.outputs if one.name not in _EXPLANATIONS]
        output = scores[0] if len(graph.outputs) > 1 and scores else None
        return merge(stated(source, output=output), spec_of_model_api(info, source))
    file = folder / "config.json"
    if not file.is_file():
        return PartialSpec()
    config = read_json(file)
    if "pretrained_cfg" in config:
        return spec_of_timm(config, file.name, graph.image_size)
    if "architectures" not in config and "model_type" not in config:
        return PartialSpec()  # of a tool that edgeml does not know
    beside = folder / "preprocessor_config.json"
    processor = read_json(beside) if beside.is_file() else None
    return spec_of_hugging_face(config, processor, (file.name, beside.name))
