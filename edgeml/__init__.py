"""Train, export and run multi-label image classifiers on the edge.

from edgeml import Predictor

print(Predictor("model.onnx").predict("photo.jpg").labels)
"""

import os

# Both must stand before the library that reads them is loaded. ONNX Runtime's wheels for Linux
# report usage to their maker unless told not to; OpenCV decodes pictures of any size.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))

from edgeml.errors import EdgemlError
from edgeml.image.preprocess import Preprocess
from edgeml.predict.predictor import Prediction, Predictor
from edgeml.spec.labels import LabelGroup
from edgeml.spec.model_spec import ModelSpec

__all__ = ["EdgemlError", "LabelGroup", "ModelSpec", "Prediction", "Predictor", "Preprocess"]
