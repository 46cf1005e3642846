"""What a model file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeml.files import sha256_of_file
from edgeml.passport import describe_engine
from edgeml.predictor import Predictor


def describe(model: Path) -> dict[str, Any]:
    """Open a model and give its runtime, size, digest and spec, as JSON values.

    An engine is not opened, which only the machine that it is for could do: its passport tells.

    Raises:
        ModelLoadError: It cannot be opened.
        SpecError: It carries no spec.
    """
    if model.suffix.lower() == ".engine" and model.is_file():
        return describe_engine(model)
    with Predictor(model) as predictor:
        runtime = predictor.runtime
        spec = json.loads(predictor.spec.to_json())
        opened = {
            "runtime": runtime.name,
            "computes_in": runtime.metadata.get("precision", "unknown"),
            "input_shape": list(runtime.input_shape),
        }
    files = model_files(model)
    return {
        "path": str(model),
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": sha256_of_file(files[0]),
        **opened,
        **spec,
    }


def model_files(model: Path) -> list[Path]:
    """List the files that a model consists of: the one that was named first."""
    if model.is_dir():
        return [model / "model.safetensors"]
    weights = model.with_suffix(".bin")
    return [model, weights] if model.suffix == ".xml" and weights.exists() else [model]
