"""An ONNX network reduced to what its spec describes: one input of one size, one row of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeml.errors import SpecError
from edgeml.runtimes.constant_folding import drop_unread
from edgeml.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    import onnx


def as_classifier(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Return the network with float32 scores (N, labels) as its only output, for the spec's images.

    Other outputs, and what only they need, are removed. Sides that the file leaves open get the
    values that the spec states; the batch stays as it is.

    Args:
        model: By `read_onnx`. It is changed.
        spec: What it means.

    Raises:
        SpecError: The network has no output of that name, or does not fit the spec.
    """
    graph = model.graph
    sizes = [len(value.type.tensor_type.shape.dim) for value in graph.input]
    _keep_output(graph, spec.output)
    if sizes == [4]:
        changed = _set_sides(graph.input[0], spec.input_sides)
        if changed or not graph.output[0].type.tensor_type.HasField("shape"):
            model = _inferred(model)
    _flatten_scores(model.graph)
    _cast_scores(model.graph)
    output = model.graph.output[0]
    if len(output.type.tensor_type.shape.dim) == 2:
        _set_sides(output, (len(spec.labels),))
    return model


def _keep_output(graph: onnx.GraphProto, name: str | None) -> None:
    """Remove all outputs but this one; None if there is only one."""
    names = [value.name for value in graph.output]
    if not names:
        raise SpecError("The model has no output.")
    if name is None and len(names) > 1:
        raise SpecError(
            f"The model has several outputs: {', '.join(names)}. The spec must name one: output."
        )
    if name is not None and name not in names:
        raise SpecError(f"The model has no output {name!r}, but {', '.join(names)}.")
    if len(names) == 1:
        return
    kept = names.index(name)
    for index in reversed(range(len(names))):
        if index != kept:
            del graph.output[index]
    drop_unread(graph)


def _set_sides(value: onnx.ValueInfoProto, sides: tuple[int, ...]) -> bool:
    """Write the sides behind the batch where they are open; return whether there were any."""
    open_sides = [
        (dim, side)
        for dim, side in zip(value.type.tensor_type.shape.dim[1:], sides, strict=True)
        if not dim.dim_value
    ]
    for dim, side in open_sides:
        dim.dim_value = side
    return bool(open_sides)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer the shapes behind the input again, as far as onnx can."""
    from onnx import shape_inference

    del model.graph.value_info[:]
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # of C++, without a public base class
        return model
    del inferred.graph.value_info[:]
    return inferred


def _flatten_scores(graph: onnx.GraphProto) -> None:
    """Bring scores such as (N, C, 1, 1), (N, 1, C) and (N,) into the form (N, C)."""
    output = graph.output[0]
    tensor = output.type.tensor_type
    dims = list(tensor.shape.dim)
    columns = [dim for dim in dims[1:] if dim.dim_value != 1]
    if not tensor.HasField("shape") or len(dims) in (0, 2) or len(columns) > 1:
        return
    batch, width = dims[0], columns[0].dim_value if columns else 1
    _append(graph, "Flatten", axis=1)
    del tensor.shape.dim[:]
    tensor.shape.dim.add().CopyFrom(batch)
    tensor.shape.dim.add().dim_value = width


def _cast_scores(graph: onnx.GraphProto) -> None:
    """Bring scores in other floats than float32 into that."""
    from onnx import TensorProto

    tensor = graph.output[0].type.tensor_type
    if tensor.elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        _append(graph, "Cast", to=TensorProto.FLOAT)
        tensor.elem_type = TensorProto.FLOAT


def _append(graph: onnx.GraphProto, op_type: str, **attributes: Any) -> None:
    """Put an operation behind the one that makes the output, under the output's name."""
    from onnx import helper

    name = graph.output[0].name
    inner = f"{name}_before_{op_type}"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner if each == name else each for each in names]
    node = helper.make_node(op_type, [inner], [name], f"{name}_{op_type}", **attributes)
    graph.node.append(node)
