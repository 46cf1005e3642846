"""One form for ONNX models of all kinds of origin: the rest of edgeml reads no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeml.errors import ModelLoadError
from edgeml.runtimes.constant_folding import fold_constants
from edgeml.runtimes.onnx_tidy import inline_constant_branches, tidy

if TYPE_CHECKING:
    import onnx

_OPSET = 13
"""The first with a scale for each channel, which INT8 weights need."""

_IR_VERSION = 4
"""The first in which initializers are no inputs."""


def normalized(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a model without local functions, whose inputs are images and whose weights constants.

    An If with a constant condition is replaced by the branch that is taken, see also `onnx_tidy`.

    Args:
        model: Changed in place, or replaced by the one that is returned.
        name: Of its file, for errors.

    Raises:
        ModelLoadError: Its functions cannot be put in line.
    """
    from onnx import inliner

    if model.functions:
        own = {function.domain for function in model.functions} - {"", "ai.onnx"}
        try:
            model = inliner.inline_local_functions(model)
        except Exception as err:  # the errors of onnx's C++ code have no public base class
            raise ModelLoadError(f"{name!r} has functions that cannot be read: {err}") from err
        own -= {node.domain for node in model.graph.node}
        imports = [each for each in model.opset_import if each.domain not in own]
        del model.opset_import[:]
        model.opset_import.extend(imports)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    tidy(model.graph)
    model = _with_opset(model)
    fold_constants(model)
    while inline_constant_branches(model.graph):
        fold_constants(model)
    return model


def _with_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise the version of ONNX's operators, where onnx can do so; else return the model as is."""
    from onnx import version_converter

    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if not versions or max(versions) >= _OPSET:
        return model
    try:
        converted = version_converter.convert_version(model, _OPSET)
    except Exception:  # of C++, without a public base class; what needs the version will refuse
        return model
    # The converter drops what it has no place for.
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    converted.producer_name = model.producer_name
    converted.producer_version = model.producer_version
    return converted
