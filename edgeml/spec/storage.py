"""Where a spec is stored: the only module that knows.

A model carries its spec inside the file, under METADATA_KEY: in ONNX metadata_props, OpenVINO
rt_info or safetensors metadata. A file `<model>.json` next to the model wins over it. The
`<model>.engine.json` next to a TensorRT engine is its passport, which holds the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeml.errors import InputError
from edgeml.spec.model_spec import ModelSpec

METADATA_KEY = "edgeml"


def sidecar_path(model: Path) -> Path:
    """Return the path of the JSON file that describes a model: `m.onnx.json` for `m.onnx`."""
    return model.with_name(model.name + ".json")


def spec_metadata(spec: ModelSpec) -> dict[str, str]:
    """Return the metadata entry that carries a spec inside a model file."""
    return {METADATA_KEY: spec.to_json()}


def spec_in(metadata: Mapping[str, str]) -> ModelSpec | None:
    """Return the spec inside a model's metadata; None if there is none. Raises SpecError."""
    text = metadata.get(METADATA_KEY)
    return ModelSpec.from_json(text) if text else None


def find_spec(path: Path | None, metadata: Mapping[str, str]) -> tuple[ModelSpec, str] | None:
    """Return the spec next to a file, or else in its metadata, and where. Raises SpecError.

    A folder has none next to it: `run.json` may be what `edgeml train --out run --json` printed.
    """
    if path is not None and path.suffix.lower() != ".engine" and not path.is_dir():
        sidecar = sidecar_path(path)
        if sidecar.is_file():
            text = sidecar.read_text(encoding="utf-8")
            return ModelSpec.from_json(text), f"beside: {sidecar.name}"
    spec = spec_in(metadata)
    return (spec, "in the file") if spec else None


def write_spec(model: Path, spec: ModelSpec, *, inside: bool = False) -> Path:
    """Write a spec next to a model as `<model>.json`, or into the model file; return what changed.

    A write into the model file replaces it as one step, so it is complete at any time.

    Raises:
        InputError: A spec next to the file would win over one inside, or it cannot be written.
        ModelLoadError: The model is not an .onnx or .xml file.
    """
    # Imported here, since `import edgeml` must be quick and most programs only read specs.
    from edgeml.files import staged, write_text

    sidecar = sidecar_path(model)
    if not inside:
        write_text(sidecar, spec.to_json() + "\n")
        return sidecar
    if sidecar.exists():
        raise InputError(
            f"{sidecar.name} is next to the model and would win over a spec inside: remove it."
        )
    if model.suffix.lower() == ".xml":
        write_spec_into_xml(model, spec)
    else:
        # Imported here because a model that carries its spec is opened without this reader.
        from edgeml.spec.foreign.onnx_graph import with_onnx_metadata

        data = memoryview(model.read_bytes())
        with staged(model) as temporary, open(temporary, "wb") as file:
            for piece in with_onnx_metadata(data, METADATA_KEY, spec.to_json()):
                file.write(piece)
    return model


def write_spec_into_xml(model: Path, spec: ModelSpec) -> None:
    """Set the spec in the rt_info of an OpenVINO .xml and leave its network alone.

    Raises ModelLoadError if it is not an OpenVINO model, InputError if it cannot be written.
    """
    from xml.etree import ElementTree

    from edgeml.files import staged
    from edgeml.spec.foreign.read_graph import read_graph

    read_graph(model)  # refuses what is not an OpenVINO model
    # As text: to save the network through OpenVINO would write its weights a second time.
    tree = ElementTree.parse(model)
    info = tree.find("rt_info")
    if info is None:
        info = ElementTree.SubElement(tree.getroot(), "rt_info")
    entry = info.find(METADATA_KEY)
    if entry is None:
        entry = ElementTree.SubElement(info, METADATA_KEY)
    entry.set("value", spec.to_json())
    with staged(model) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)
