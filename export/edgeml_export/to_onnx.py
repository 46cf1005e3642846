"""DOOR torch: a training checkpoint to ONNX."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from timm.models import reparameterize_model
from torch import Tensor, nn

from edgeml.errors import ExportError, needs
from edgeml.files import sha256_of_file
from edgeml.image.preprocess import Preprocess
from edgeml.network.checkpoint import load_checkpoint
from edgeml.network.model import one_line
from edgeml.runtimes import open_runtime
from edgeml.runtimes.onnx_file import write_onnx
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.request import Input

logger = logging.getLogger(__name__)
Exporter = Callable[[nn.Module, Tensor], onnx.ModelProto]
OPSET = 18
"""Read by every TensorRT of a Jetson (10.3) and by ONNX Runtime since 1.14."""
# Methods that merge the branches of a module of timm.
_MERGE_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
_OPTIONS: dict[str, Any] = {
    "opset_version": OPSET,
    "input_names": ["images"],
    "output_names": ["logits"],
}
IR_VERSION = 10
"""The newest that ONNX Runtime 1.20 reads."""
MERGE_TOLERANCE = 1e-4
"""Largest allowed change of logits by merging branches, relative to the largest logit; merging
MobileOne, RepViT, FastViT and RepGhostNet changed them by less than 1e-6."""
PARITY = 1e-3
"""Largest allowed difference of logits to PyTorch: different orders of summation stay below it.
Above logits of 100, 1e-5 of the largest."""


def onnx_from_checkpoint(
    source: Path, target: Path, *, input: Input = "float32", slim: bool = False
) -> Path:
    """Write a run folder, or its .safetensors, as FP32 ONNX for any batch size.

    `onnx_from_module` explains `input` and `slim`.

    Raises:
        ModelLoadError: The checkpoint cannot be read, or its model cannot be built.
        ExportError: Neither of PyTorch's exporters writes a network that computes the same.
        MissingDependencyError: `slim` without onnxslim.
    """
    module, spec = load_checkpoint(source)
    weights = source / "model.safetensors" if source.is_dir() else source
    provenance = replace(spec.provenance, checkpoint_sha256=sha256_of_file(weights))
    return onnx_from_module(
        module, replace(spec, provenance=provenance), target, input=input, slim=slim
    )


def onnx_from_module(
    module: nn.Module,
    spec: ModelSpec,
    target: Path,
    *,
    input: Input = "float32",
    slim: bool = False,
) -> Path:
    """Write a network that maps (N, 3, H, W) to logits (N, labels) as FP32 ONNX.

    PyTorch's dynamo exporter is tried first, then its older one. The spec names the first one
    whose network agrees with `module` at batch sizes that it was not traced with. Branches that
    are equivalent to one convolution are merged first, in a copy: `reparameterized` in the spec.
    `precision` and `input` of the spec are set to what is written.

    With `input="uint8"` the graph takes raw BGR frames (N, H, W, 3) uint8 of the right size, and
    normalises them. `slim` lets onnxslim merge nodes, and uses its result if that is smaller and
    agrees with `module` too; `slimmed` in the spec states the outcome.

    Raises:
        ExportError: Merged branches compute something else, or neither exporter writes a network
            that computes the same.
        MissingDependencyError: `slim` without onnxslim.
    """
    network, notes = _reparameterized(module, spec)
    if input == "uint8":
        network = _FromPixels(network, spec.preprocess).eval()
    spec = replace(spec, input=input, precision="fp32")
    failures = []
    for name, exporter in EXPORTERS.items():
        try:
            model = _tidy(_quietly(exporter, network, _example(spec, 2)))
            difference = _difference(network, model, spec)
        except Exception as err:  # an exporter may raise anything
            failures.append(f"{name}: {one_line(err)}")
            logger.info("The %s exporter failed: %s", name, one_line(err))
            continue
        if difference <= PARITY:
            if slim:
                model, notes["slimmed"] = _slimmed(network, model, spec)
            provenance = replace(
                spec.provenance,
                exporter=f"torch {torch.__version__} {name}, opset {OPSET}",
                notes={**spec.provenance.notes, **notes},
            )
            write_onnx(model, target, replace(spec, provenance=provenance))
            return target
        failures.append(f"{name}: its logits are off by {difference:.2g}")
        logger.info("The %s exporter is off by %g", name, difference)
    raise ExportError(f"The model cannot be written as ONNX. {'; '.join(failures)}.")


def _slimmed(
    network: nn.Module, model: onnx.ModelProto, spec: ModelSpec
) -> tuple[onnx.ModelProto, str]:
    """Return a smaller model that computes the same, or else the model, and a note on which."""
    with needs("onnxslim", extra="slim", to="merge nodes of an ONNX model"):
        import onnxslim
    tool = f"onnxslim {onnxslim.__version__}"
    try:
        slim = _tidy(onnxslim.slim(onnx.ModelProto.FromString(model.SerializeToString())))
        difference = _difference(network, slim, spec)
    except Exception as err:  # onnxslim may raise anything
        logger.info("%s failed: %s", tool, one_line(err))
        return model, f"{tool} failed: {one_line(err)}"
    before, after = len(model.graph.node), len(slim.graph.node)
    if after >= before:
        return model, f"{tool} found nothing to merge"
    if difference > PARITY:
        return model, f"{tool} not kept: its logits are off by {difference:.2g}"
    return slim, f"{tool}: {before} nodes became {after}"


def _reparameterized(module: nn.Module, spec: ModelSpec) -> tuple[nn.Module, dict[str, str]]:
    """Merge branches on a copy, as RepVGG (Ding et al., 2021) and similar networks should run.

    Return the copy in evaluation mode, on the CPU, and notes on what was done.
    """
    source = copy.deepcopy(module).eval().cpu()
    if not any(hasattr(part, name) for part in source.modules() for name in _MERGE_METHODS):
        return source, {}
    merged = reparameterize_model(source).eval()
    example = _example(replace(spec, input="float32"), 3)
    with torch.inference_mode():
        expected, actual = source(example), merged(example)
    error = float((actual - expected).abs().max() / expected.abs().max())
    if not error <= MERGE_TOLERANCE:
        raise ExportError(
            f"Merging the branches of this {type(module).__name__} changes its logits by "
            f"{100 * error:.2g} % of the largest; up to {100 * MERGE_TOLERANCE:g} % are rounding. "
            "The statistics of its batch normalisation may be damaged: train it again."
        )
    before, after = (sum(p.numel() for p in net.parameters()) / 1e6 for net in (source, merged))
    return merged, {"reparameterized": f"{before:.2f} M parameters became {after:.2f} M"}


class _FromPixels(nn.Module):
    """Does inside the network what `Preprocess.normalize` does; begins with a Cast.

    TensorRT accepts a uint8 input only if its first operation is a cast to float.
    """

    scale: Tensor
    shift: Tensor
    order: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        mean = torch.tensor(preprocess.mean, dtype=torch.float64)
        std = torch.tensor(preprocess.std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float().view(1, 3, 1, 1))
        self.register_buffer("shift", (mean / std).float().view(1, 3, 1, 1))
        order = (2, 1, 0) if preprocess.channels == "rgb" else (0, 1, 2)
        self.register_buffer("order", torch.tensor(order))

    def forward(self, frames: Tensor) -> Tensor:
        planes = frames.to(torch.float32).permute(0, 3, 1, 2).index_select(1, self.order)
        logits: Tensor = self.network(planes * self.scale - self.shift)
        return logits


def _by_dynamo(network: nn.Module, example: Tensor) -> onnx.ModelProto:
    shapes = ({0: "batch"},)
    program = torch.onnx.export(
        network, (example,), dynamo=True, verbose=False, dynamic_shapes=shapes, **_OPTIONS
    )
    assert program is not None
    return program.model_proto


def _by_torchscript(network: nn.Module, example: Tensor) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (example,),
            written,
            dynamo=False,
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            **_OPTIONS,
        )
        return onnx.load(written)


EXPORTERS: dict[str, Exporter] = {"dynamo": _by_dynamo, "torchscript": _by_torchscript}
"""In the order in which they are tried."""


def _quietly(exporter: Exporter, network: nn.Module, example: Tensor) -> onnx.ModelProto:
    """Run an exporter without its messages to developers of exporters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return exporter(network, example)
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's debugging notes: stack traces, with local paths."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for value in graph.value_info:
        value.ClearField("metadata_props")
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model


def _difference(network: nn.Module, model: onnx.ModelProto, spec: ModelSpec) -> float:
    """Return the largest difference of logits at batch sizes that the exporter did not see.

    It is in units of one, or of a hundredth of the largest logit if that is more: rounding grows
    with the values, and a network after one epoch from scratch may have logits of 600,000.
    """
    with TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        write_onnx(model, written, spec)
        runtime = open_runtime(written)
    worst = 0.0
    for count in (1, 3):
        example = _example(spec, count)
        with torch.inference_mode():
            expected = network(example).numpy()
        actual = runtime.run(example.numpy())
        if actual.shape != expected.shape:
            raise ExportError(f"a batch of {count} gives {actual.shape}, not {expected.shape}")
        unit = max(1.0, float(np.abs(expected).max()) / 100)
        worst = max(worst, float(np.abs(actual - expected).max()) / unit)
    return worst if np.isfinite(worst) else float("inf")


def _example(spec: ModelSpec, count: int) -> Tensor:
    """Draw a batch of soft blots, which excite every layer as photos do and noise does not."""
    seeds = np.random.default_rng(count).integers(0, 256, (count, 5, 5, 3), np.uint8)
    height, width = spec.preprocess.size
    frames: list[NDArray[np.uint8]] = [
        cv2.resize(seed, (width, height), interpolation=cv2.INTER_CUBIC) for seed in seeds
    ]
    return torch.from_numpy(spec.network_input_fitted(np.stack(frames)))
