"""Turn trained models into files for devices, and check that they still give the same labels."""

# The module is `pipeline` because a submodule `export` would be hidden by the function.
from edgeml_export.pipeline import Exported as Exported
from edgeml_export.pipeline import export as export
from edgeml_export.pipeline import run_export as run_export
from edgeml_export.request import ExportRequest as ExportRequest
