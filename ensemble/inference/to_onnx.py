"""Networks as ONNX models, in float32, for any number of images.

PyTorch's exporter takes seconds of a core for a network, nearly all of it for what depends on the architecture alone.
So networks of one architecture are exported once: their weights are inputs of the graph while it is optimised (nothing
is then folded into them, nor is one merged with another that happens to be equal), and become constants afterwards,
each network's own. The runtimes fold what can be folded when they load the file.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ensemble.errors import UserError

if TYPE_CHECKING:
    import onnx

Graphs = dict[tuple[str, int], "onnx.ModelProto"]  # by architecture and the side of its images

OPSET = 18  # the least that the exporter writes; every runtime of the last years reads it


def require_onnx() -> None:
    """Raise UserError unless the packages that write ONNX are there."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'ONNX needs packages that are not installed ({error}): pip install "ens-vision[export]"'
        ) from None


def network_to_onnx(module: torch.nn.Module, image_size: int) -> "onnx.ModelProto":
    """A network in evaluation on the CPU, as `eval_model.folded` gives it, as an ONNX model: from `images` float32
    (batch, 3, S, S), normalised, to `logits` float32 (batch, C). Raises UserError if a package is missing, or if
    PyTorch's exporter can't write the network."""
    return networks_to_onnx([module], image_size)[0]


def networks_to_onnx(modules: Sequence[torch.nn.Module], image_size: int) -> "list[onnx.ModelProto]":
    """As `network_to_onnx` each of several networks; those of one architecture are exported once."""
    graphs: Graphs = {}
    return [network_with(graphs, module, image_size) for module in modules]


def network_with(graphs: Graphs, module: torch.nn.Module, image_size: int) -> "onnx.ModelProto":
    """As `network_to_onnx`. graphs: of the architectures that were exported before, to which a new one is added."""
    module = at_size(module, image_size)
    key = architecture(module), image_size
    if key not in graphs:
        graphs[key] = graph_of(module, {"images": torch.zeros(2, 3, image_size, image_size)}, "logits")
    return with_weights(graphs[key], module)


def at_size(module: torch.nn.Module, image_size: int) -> torch.nn.Module:
    """The module or, where it would resample its position embeddings for images of this size, a copy that holds them
    resampled and shares all else: OpenVINO resamples without torch's antialiasing, which moves logits by 0.02."""
    found: Any = _resampling(module)
    if found is None or found.patch_embed.img_size == (image_size, image_size):
        return module
    tensors = (*module.parameters(), *module.buffers())
    with torch.inference_mode(False), torch.no_grad():
        sized = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
        resampling: Any = _resampling(sized)
        resampling.set_input_size((image_size, image_size))
    return sized.requires_grad_(False)


def _resampling(module: torch.nn.Module) -> torch.nn.Module | None:
    """What resamples its position embeddings: the module or a part of it."""
    return next((part for part in module.modules() if getattr(part, "dynamic_img_size", False)), None)


def graph_of(
    module: torch.nn.Module, examples: Mapping[str, torch.Tensor], *outputs: str, batch_dim: int = 0
) -> "onnx.ModelProto":
    """The graph of a module, whose weights are inputs after those that it is called with.

    examples: for each input a tensor with 2 or more images
    outputs: the names of what it gives
    batch_dim: which dimension of the inputs is the images

    Raises UserError if a package is missing, or if PyTorch's exporter can't write the module.
    """
    require_onnx()
    import onnx_ir
    import onnxscript.optimizer

    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    batch = torch.export.Dim("batch")
    for example in examples.values():
        shapes[example] = {batch_dim: batch}
    args = tuple(examples.values())
    with quiet():
        try:
            dynamic = shapes.dynamic_shapes(module, args)  # type: ignore[no-untyped-call]
            exported = torch.export.export(module, args, dynamic_shapes=dynamic, strict=False)
            program = torch.onnx.export(
                exported,
                input_names=list(examples),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # whatever a module's code leads the exporter to
            raise UserError(f"PyTorch's exporter can't write it as ONNX ({_reason(error)})") from error
        assert program is not None
        graph, weights = program.model.graph, _weights(module)
        for name in [name for name in graph.initializers if name in weights]:
            value = graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)
        onnxscript.optimizer.optimize_ir(program.model)
        model = onnx_ir.to_proto(program.model)
    # What lies between may hold symbols that mean nothing outside of this graph.
    del model.graph.value_info[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    return model


def with_weights(graph: "onnx.ModelProto", module: torch.nn.Module) -> "onnx.ModelProto":
    """The model of a graph from `graph_of` with the weights of a module of that architecture."""
    import onnx

    model, weights = onnx.ModelProto(), _weights(module)
    model.CopyFrom(graph)
    given = [value for value in model.graph.input if value.name not in weights]
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(weights[value.name].detach().cpu().contiguous().numpy(), value.name)
        for value in model.graph.input
        if value.name in weights
    )
    del model.graph.input[:]
    model.graph.input.extend(given)
    return model


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """By all their names: of layers that share a weight, the graph names another than the module's first."""
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def architecture(module: torch.nn.Module) -> str:
    """Equal for modules that differ in the values of their weights alone."""
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in _weights(module).items()}
    # What modules print lacks numbers that no shape shows, such as that of attention's heads, or the k of a vote.
    kinds = (int, float, str)
    plain = [{key: value for key, value in vars(part).items() if isinstance(value, kinds)} for part in module.modules()]
    return f"{module}{shapes}{plain}"


def _reason(error: BaseException) -> str:
    """The first line of what the exporter said of the cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
