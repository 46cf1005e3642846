"""Train, export and run multi-label image classifiers on the edge.

Example:
    ```python
    from edgeml import Predictor

    print(Predictor("model.onnx").predict("photo.jpg").labels)
    ```
"""

from edgeml.errors import EdgemlError
from edgeml.image.preprocess import Preprocess
from edgeml.predict.predictor import Prediction, Predictor
from edgeml.spec import LabelGroup, ModelSpec

__all__ = ["EdgemlError", "LabelGroup", "ModelSpec", "Prediction", "Predictor", "Preprocess"]


def __dir__() -> list[str]:
    """Return the public names only: imports above also bind the packages they come from."""
    return __all__
