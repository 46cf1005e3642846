"""What a model file says of itself, and where each part of that was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeml.errors import SpecError
from edgeml.files import sha256_of_file
from edgeml.predict.predictor import Predictor, model_in
from edgeml.runtimes.tensorrt.passport import describe_engine
from edgeml.spec.foreign.merge import NOTHING, Reading, Said, spec_for, spec_sources
from edgeml.spec.storage import write_spec


def describe(
    model: Path, said: Said = NOTHING, *, write: bool = False, inside: bool = False
) -> dict[str, Any]:
    """Open a model and give its runtime, size, digest and spec, as JSON values.

    An engine is not opened, which only the machine that it is for could do: its passport tells.

    Args:
        model: A model of any format.
        said: What a person adds, of an .onnx or .xml.
        write: Store the spec beside the model, once it was seen to open and to fit.
        inside: Store it in the model file instead.

    Raises:
        ModelLoadError: It cannot be opened.
        SpecError: Nobody says all of what it means, or that does not fit.
    """
    path = model_in(model)
    reading = read_spec(path, said)
    if path.suffix.lower() == ".engine" and path.is_file():
        if write:
            raise SpecError(f"{path.name} has its spec in its passport already.")
        return {**describe_engine(path), "sources": spec_sources("the passport")}
    with Predictor(path, spec=reading.spec if reading else None) as predictor:
        runtime, spec = predictor.runtime, predictor.spec
        batch = runtime.metadata.get("batch")
        opened = {
            "runtime": runtime.name,
            "computes_in": runtime.metadata.get("precision", "unknown"),
            "input_shape": [batch and int(batch), *runtime.input_shape[1:]],
        }
    written = write_spec(path, spec, inside=inside) if write else None
    files = model_files(path)
    return {
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": sha256_of_file(files[0]),
        **opened,
        **json.loads(spec.to_json()),
        "sources": dict(reading.sources if reading else spec_sources("in the file")),
        **({"written": str(written)} if written else {}),
    }


def read_spec(path: Path, said: Said) -> Reading | None:
    """Read what an .onnx or .xml means; of other formats their runtimes tell.

    Raises:
        SpecError: Nobody says all of it, or of another format something is said.
    """
    if path.suffix.lower() in (".onnx", ".xml") and path.is_file():
        return spec_for(path, said)
    if said != NOTHING:
        raise SpecError(f"{path.name} says itself what it means; nothing can be added.")
    return None


def model_files(model: Path) -> list[Path]:
    """List the files that a model consists of: the one that was named first."""
    model = model_in(model)
    if model.is_dir():
        return [model / "model.safetensors"]
    weights = model.with_suffix(".bin")
    return [model, weights] if model.suffix == ".xml" and weights.exists() else [model]
