"""Turn trained models into ones that devices run, and prove that they still mean the same."""

from edgeml_export._export import export as export
from edgeml_export.result import Exported as Exported
