"""Where a spec is stored."""

from __future__ import annotations

from pathlib import Path

from edgeml.errors import InputError
from edgeml.files import staged, write_text
from edgeml.spec.foreign.endings import Graph
from edgeml.spec.foreign.onnx_graph import with_onnx_metadata
from edgeml.spec.foreign.read_graph import read_graph
from edgeml.spec.model_spec import METADATA_KEY, ModelSpec


def write_spec(model: Path, spec: ModelSpec, *, inside: bool = False) -> Path:
    """Store a spec beside a model as `<model>.json`, or in the model file; give what was written.

    The model file is only touched if it shall be, and is whole at any time.

    Raises:
        InputError: Beside the file stands a spec that would win over one inside, or it cannot be
            written.
        ModelLoadError: It is no .onnx or .xml file.
    """
    sidecar = model.with_name(model.name + ".json")
    if not inside:
        write_text(sidecar, spec.to_json() + "\n")
        return sidecar
    if sidecar.exists():
        raise InputError(
            f"{sidecar.name} stands beside the model and would win over a spec inside: remove it."
        )
    if model.suffix.lower() == ".xml":
        _write_into_xml(model, spec)
    else:
        data = memoryview(model.read_bytes())
        with staged(model) as temporary, open(temporary, "wb") as file:
            for piece in with_onnx_metadata(data, METADATA_KEY, spec.to_json()):
                file.write(piece)
    return model


def _write_into_xml(model: Path, spec: ModelSpec) -> None:
    from xml.etree import ElementTree

    read_graph(model)  # refuses what is no OpenVINO model
    root = ElementTree.fromstring(model.read_text(encoding="utf-8"))
    info = root.find("rt_info")
    info = ElementTree.SubElement(root, "rt_info") if info is None else info
    for old in info.findall(METADATA_KEY):
        info.remove(old)
    ElementTree.SubElement(info, METADATA_KEY, value=spec.to_json())
    write_text(model, '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode"))


def _own_spec(path: Path, graph: Graph) -> tuple[ModelSpec, str] | None:
    sidecar = path.with_name(path.name + ".json")
    if sidecar.is_file():
        return ModelSpec.from_json(sidecar.read_text(encoding="utf-8")), f"beside: {sidecar.name}"
    inside = graph.metadata.get(METADATA_KEY)
    return (ModelSpec.from_json(inside), "in the file") if inside else None
