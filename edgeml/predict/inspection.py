"""What a model file means, and the source of each field."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeml.errors import ModelLoadError, SpecError
from edgeml.files import sha256_of_file
from edgeml.predict.predictor import Predictor, model_in
from edgeml.runtimes.external_weights import weight_files
from edgeml.runtimes.open import runner_of
from edgeml.runtimes.tensorrt.passport import describe_engine
from edgeml.spec.foreign.merge import NO_OVERRIDES, SpecOverrides, spec_for, spec_sources
from edgeml.spec.storage import write_spec


def describe(
    model: Path,
    overrides: SpecOverrides = NO_OVERRIDES,
    *,
    write: bool = False,
    inside: bool = False,
) -> dict[str, Any]:
    """Open a model and return its runtime, size, digest and spec, as JSON values.

    An engine is not opened, which only its own kind of machine can do: its passport is read.

    Args:
        model: A model of any format.
        overrides: What a person states about an .onnx or .xml.
        write: Write the spec next to the model, after it has opened and fits.
        inside: Write it into the model file instead.

    Raises:
        ModelLoadError: It cannot be opened.
        SpecError: The spec is incomplete, does not fit the model, or cannot be overridden.
    """
    path = model_in(model)
    stated = None
    if path.suffix.lower() in (".onnx", ".xml") and path.is_file():
        stated = spec_for(path, overrides, run=runner_of(path))
    elif overrides != NO_OVERRIDES and path.exists():
        raise SpecError(
            f"{path.name} has a spec of its own, which cannot be changed: omit these options."
        )
    if path.suffix.lower() == ".engine" and path.is_file():
        if write:
            raise SpecError(f"{path.name} has its spec in its passport already.")
        return {**describe_engine(path), "sources": spec_sources("the passport")}
    with Predictor(path, spec=stated.spec if stated else None) as predictor:
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
        "sources": dict(stated.sources if stated else spec_sources("in the file")),
        **({"written": str(written)} if written else {}),
    }


def model_files(model: Path) -> list[Path]:
    """Return the files of a model, starting with the model itself."""
    model = model_in(model)
    if model.is_dir():
        return [model / "model.safetensors"]
    if model.suffix.lower() == ".onnx":
        with suppress(ModelLoadError):  # which who opens it reports
            return [model, *weight_files(model)]
    weights = model.with_suffix(".bin")
    return [model, weights] if model.suffix == ".xml" and weights.exists() else [model]
