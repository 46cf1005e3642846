"""What a model file means."""

from edgeml.spec.labels import LabelGroup
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.provenance import Provenance, SplitPlan

__all__ = ["LabelGroup", "ModelSpec", "Provenance", "SplitPlan"]
