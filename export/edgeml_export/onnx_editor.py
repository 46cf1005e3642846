"""The one editor of ONNX graphs: new names, constants and nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgeml.runtimes.onnx_graph import Graph

if TYPE_CHECKING:
    import onnx


class GraphEditor:
    """Writes a new list of nodes for one graph.

    Attributes:
        proto: The graph itself.
        graph: Its values when editing began, and the constants that were added since.
        nodes: The new list; `finish` puts it in place.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.proto, self.graph = model.graph, Graph.of(model)
        self.nodes: list[onnx.NodeProto] = []
        self._names = {*self.graph.constants, *(value.name for value in model.graph.input)}
        self._names |= {name for node in model.graph.node for name in (node.name, *node.output)}

    def new_name(self, name: str) -> str:
        """Return a name that nothing in the graph has: this one, or one with `_` behind it."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def add_constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant and return its name, a new one."""
        from onnx import numpy_helper

        name = self.new_name(name)
        tensor = numpy_helper.from_array(values, name)
        self.proto.initializer.append(tensor)
        self.graph.constants[name] = tensor
        return name

    def add_node(
        self, op_type: str, inputs: Sequence[str], output: str, name: str, **attributes: Any
    ) -> None:
        """Append a node of one output; its name is a new one."""
        from onnx import helper

        name = self.new_name(name)
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))

    def finish(self) -> None:
        """Put the new nodes in place."""
        from onnx import NodeProto

        # Protobuf frees the nodes that are deleted, also those that the new list holds.
        copies = [NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.proto.node[:]
        self.proto.node.extend(copies)
        del self.proto.value_info[:]  # it describes the old values

    def drop_unread_constants(self) -> None:
        """Remove the initializers that no node reads."""
        read = {name for node in self.proto.node for name in node.input}
        used = [tensor for tensor in self.proto.initializer if tensor.name in read]
        del self.proto.initializer[:]
        self.proto.initializer.extend(used)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give a name of its own to each node without one, and to each but the first of one name."""
    taken = {node.name for node in graph.node}
    seen = {""}
    for number, node in enumerate(graph.node):
        if node.name in seen:
            node.name = f"node_{number}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
        seen.add(node.name)


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Put initializers in place of Constant nodes."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        if node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.node.remove(node)
