"""What ONNX Runtime tolerates in a file, and other libraries do not, put in the usual form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


def tidy(graph: onnx.GraphProto) -> None:
    """Give the graph a name, texts for names, dense constants, and nodes in order, in place."""
    graph.name = _text(graph.name) or "network"
    _decode_names(graph)
    _make_dense(graph)
    _sort_nodes(graph)


def inline_constant_branches(graph: onnx.GraphProto) -> bool:
    """Put the branch that is taken in place of each If with a constant condition.

    Return whether there was one. PyTorch's older exporter writes such an If for `squeeze`.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    chosen = [
        (node, branch)
        for node in graph.node
        if node.op_type == "If" and node.input[0] in constants
        for branch in [_branch(node, constants[node.input[0]])]
        if branch is not None
    ]
    for node, branch in chosen:
        _replace(graph, node, branch)
    return bool(chosen)


def _text(name: Any) -> str:
    """Return a name as text; protobuf returns what is not UTF-8 as bytes."""
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def _decode_names(graph: onnx.GraphProto) -> None:
    for named in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        if isinstance(named.name, bytes):
            named.name = _text(named.name)
    for node in graph.node:
        for names in (node.input, node.output):
            if any(isinstance(name, bytes) for name in names):
                names[:] = [_text(name) for name in names]


def _make_dense(graph: onnx.GraphProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    for sparse in graph.sparse_initializer:
        values, places = map(numpy_helper.to_array, (sparse.values, sparse.indices))
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if places.ndim == 2:  # one row of coordinates for each value
            places = np.ravel_multi_index(tuple(places.T), dense.shape)
        dense.flat[places] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind those that make what they read; a graph with a cycle stays as it is."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = [
        {maker[name] for name in names_read(node) if name in maker} - {index}
        for index, node in enumerate(graph.node)
    ]
    if all(max(needed, default=-1) < index for index, needed in enumerate(before)):
        return
    order: dict[int, None] = {}
    waiting = list(range(len(before)))
    while waiting:
        ready = [index for index in waiting if before[index] <= order.keys()]
        if not ready:
            return
        order.update(dict.fromkeys(ready))
        waiting = [index for index in waiting if index not in order]
    _set_nodes(graph, [graph.node[index] for index in order])


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    from onnx import NodeProto

    # Protobuf frees the nodes that are deleted, also those that the new list holds.
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def names_read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, in the graphs inside of an If or Loop too."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            names.update(value.name for value in inner.output)
            for each in inner.node:
                names |= names_read(each)
    return names


def _branch(node: onnx.NodeProto, condition: onnx.TensorProto) -> onnx.GraphProto | None:
    """Return the graph that an If runs; None if graphs inside of it would have to be renamed."""
    from onnx import numpy_helper

    wanted = "then_branch" if numpy_helper.to_array(condition).all() else "else_branch"
    (branch,) = (each.g for each in node.attribute if each.name == wanted)
    nested = any(each.HasField("g") for inner in branch.node for each in inner.attribute)
    return None if nested or branch.sparse_initializer else branch


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, branch: onnx.GraphProto) -> None:
    from onnx import NodeProto, TensorProto, helper

    # Two branches may use the same names, which are then of one graph.
    own = {name for each in branch.node for name in each.output if name}
    own |= {tensor.name for tensor in branch.initializer}
    renamed = {name: f"{node.output[0]}_{name}" for name in own}
    nodes = []
    for inner in branch.node:
        copy = NodeProto.FromString(inner.SerializeToString())
        copy.name = f"{node.output[0]}_{inner.name}"
        for names in (copy.input, copy.output):
            names[:] = [renamed.get(name, name) for name in names]
        nodes.append(copy)
    for tensor in branch.initializer:
        moved = TensorProto.FromString(tensor.SerializeToString())
        moved.name = renamed[tensor.name]
        graph.initializer.append(moved)
    for value, output in zip(branch.output, node.output, strict=True):
        source = renamed.get(value.name, value.name)
        nodes.append(helper.make_node("Identity", [source], [output], f"{output}_chosen"))
    place = list(graph.node).index(node)
    _set_nodes(graph, [*graph.node[:place], *nodes, *graph.node[place + 1 :]])
