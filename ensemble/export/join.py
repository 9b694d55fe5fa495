"""Several ONNX graphs joined to one, in which tensors of equal content are stored once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ensemble.inference.to_onnx import OPSET

if TYPE_CHECKING:
    import onnx


class Joined:
    """A graph that grows by parts. Names are made unique by the prefix of their part.

    bytes: of the tensors so far
    """

    def __init__(self) -> None:
        import onnx

        self.bytes = 0
        self._model = onnx.ModelProto()
        self._stored: dict[tuple[int, tuple[int, ...], str], str] = {}

    def add_input(self, name: str, shape: Sequence[int | str], dtype: type[np.generic]) -> None:
        self._model.graph.input.append(_value(name, shape, dtype))

    def add_output(self, name: str, shape: Sequence[int | str], source: str) -> None:
        """float32. source: the tensor that it gives."""
        self.add_node("Identity", [source], name)
        self._model.graph.output.append(_value(name, shape, np.float32))

    def add_part(self, part: "onnx.ModelProto", prefix: str, inputs: Mapping[str, str]) -> list[str]:
        """Add a model's graph. inputs: for each of its inputs the tensor that it is given. Returns the names of its
        outputs."""
        names = dict(inputs)
        for tensor in part.graph.initializer:
            names[tensor.name] = self._store(tensor, f"{prefix}{tensor.name}")
        for node in part.graph.node:
            self._model.graph.node.append(_renamed(node, prefix, names))
        return [names[value.name] for value in part.graph.output]

    def add_node(self, operator: str, inputs: Sequence[str], output: str, axis: int | None = None) -> str:
        """Returns `output`."""
        import onnx

        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        self._model.graph.node.append(onnx.helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def add_constant(self, values: Sequence[int], name: str) -> str:
        """int64. Returns the name under which it is stored."""
        import onnx

        return self._store(onnx.numpy_helper.from_array(np.array(values, dtype=np.int64)), name)

    def to_bytes(self, producer: str) -> bytes:
        """The serialised model, without the tensors that nothing uses."""
        import onnx

        model = self._model
        used = {name for node in model.graph.node for name in _all_inputs(node)}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        model.graph.name, model.producer_name, model.ir_version = "ensemble", producer, 10
        model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
        return bytes(model.SerializeToString())

    def _store(self, tensor: "onnx.TensorProto", name: str) -> str:
        """The name under which a tensor of this content is stored."""
        content = tensor.raw_data
        if not content:  # its numbers are in other fields
            plain = type(tensor)()
            plain.CopyFrom(tensor)
            plain.name = ""
            content = plain.SerializeToString(deterministic=True)
        key = (tensor.data_type, tuple(tensor.dims), xxhash.xxh3_128(content).hexdigest())
        if key not in self._stored:
            self._stored[key] = name
            stored = self._model.graph.initializer.add()
            stored.CopyFrom(tensor)
            stored.name = name
            self.bytes += len(content)
        return self._stored[key]


def _renamed(node: "onnx.NodeProto", prefix: str, names: dict[str, str]) -> "onnx.NodeProto":
    """A copy of a node, and of the graphs in it, with the names that its tensors have in the joined graph. Adds those
    of its outputs to `names`."""
    copied = type(node)()
    copied.CopyFrom(node)
    copied.name = f"{prefix}{node.name}"
    copied.input[:] = [names.get(name, f"{prefix}{name}") if name else "" for name in node.input]
    for name in node.output:
        if name:
            names[name] = f"{prefix}{name}"
    copied.output[:] = [names[name] if name else "" for name in node.output]
    for attribute in copied.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            inner = dict(names)
            for value in (*graph.input, *graph.initializer):
                inner[value.name] = value.name = f"{prefix}{value.name}"
            nodes = [_renamed(each, prefix, inner) for each in graph.node]
            del graph.node[:], graph.value_info[:]
            graph.node.extend(nodes)
            for value in graph.output:
                value.name = inner.get(value.name, f"{prefix}{value.name}")
    return copied


def _all_inputs(node: "onnx.NodeProto") -> list[str]:
    """The names of what a node, or a graph in it, is given."""
    inner = [
        name
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
        for name in [*(each for node in graph.node for each in _all_inputs(node)), *(out.name for out in graph.output)]
    ]
    return [*node.input, *inner]


def _value(name: str, shape: Sequence[int | str], dtype: type[np.generic]) -> "onnx.ValueInfoProto":
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return onnx.helper.make_tensor_value_info(name, kind, shape)
