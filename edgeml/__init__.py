"""Train, export and run multi-label image classifiers on the edge.

Example:
    ```python
    from edgeml import Predictor

    print(Predictor("model.onnx").predict("photo.jpg").labels)
    ```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeml.errors import EdgemlError as EdgemlError
    from edgeml.image.preprocess import Preprocess as Preprocess
    from edgeml.predict.predictor import Prediction as Prediction
    from edgeml.predict.predictor import Predictor as Predictor
    from edgeml.spec.labels import LabelGroup as LabelGroup
    from edgeml.spec.model_spec import ModelSpec as ModelSpec

_MODULES = {
    "EdgemlError": "edgeml.errors",
    "LabelGroup": "edgeml.spec.labels",
    "ModelSpec": "edgeml.spec.model_spec",
    "Prediction": "edgeml.predict.predictor",
    "Predictor": "edgeml.predict.predictor",
    "Preprocess": "edgeml.image.preprocess",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `edgeml --help` loads no numpy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'edgeml' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names only: importing submodules binds their names here, too."""
    return __all__
