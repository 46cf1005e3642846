"""What a model file means."""

from edgeml.spec.labels import LabelGroup as LabelGroup
from edgeml.spec.model_spec import ModelSpec as ModelSpec
