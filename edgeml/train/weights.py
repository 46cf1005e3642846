"""Weights to start from, and the preprocessing that they were trained with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from edgeml.errors import ModelLoadError, SpecError
from edgeml.preprocess import Interpolation, Preprocess
from edgeml.spec import METADATA_KEY, ModelSpec
from edgeml.train.model import CNN, head_layers

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
"""The weights in a run folder, and in a repository of timm on the Hugging Face hub."""

# Seconds after which the hub counts as unreachable.
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what their file says of itself."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def spec(self) -> ModelSpec | None:
        """The spec, if edgeml wrote the file."""
        text = self.metadata.get(METADATA_KEY)
        return None if text is None else ModelSpec.from_json(text)


def read_weights(path: Path) -> Weights:
    """Read a .safetensors file, or that of a run folder. Pickles are never opened.

    Raises:
        ModelLoadError: The file is missing, damaged, or of another format.
    """
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelLoadError(f"There are no weights {str(file)!r}.")
    if file.suffix != ".safetensors":
        raise ModelLoadError(
            f"{file.name!r} is not a .safetensors file. Other formats may hold code that would run "
            "on loading: convert it with safetensors.torch.save_file."
        )
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return Weights(file, tensors, dict(opened.metadata() or {}))
    except (SafetensorError, OSError) as err:
        raise ModelLoadError(f"{file.name!r} cannot be read as safetensors: {err}.") from err


def load_weights(model: nn.Module, weights: Weights, labels: Sequence[str]) -> bool:
    """Put weights into a model; say whether its head came with them.

    The head is left as it is, to be trained anew, if the file's has another width, or other
    labels.

    Raises:
        ModelLoadError: Tensors besides the head are missing, left over or of another shape.
    """
    wanted = model.state_dict()
    head = {
        f"{layer}.{name}"
        for layer, module in head_layers(model).items()
        for name, _ in module.named_parameters()
    }
    spec = weights.spec
    with_head = (spec is None or spec.labels == tuple(labels)) and all(
        key in weights.tensors and weights.tensors[key].shape == wanted[key].shape for key in head
    )
    left_out = set() if with_head else head
    expected = {key: value for key, value in wanted.items() if key not in left_out}
    given = {key: value for key, value in weights.tensors.items() if key not in left_out}
    _check_keys(weights.path.name, expected, given)
    model.load_state_dict(given, strict=False)
    return with_head


def published_weights(name: str) -> Weights:
    """Fetch timm's published weights of a model: from the local cache, else from the hub.

    Raises:
        ModelLoadError: None are published as safetensors, or the hub cannot be reached.
    """
    import huggingface_hub as hub

    config = None if name == CNN else timm.models.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config else None
    if repository is None:
        raise ModelLoadError(f"No weights are published for {name!r}: train with --from-scratch.")
    try:
        try:
            path = hub.hf_hub_download(repository, WEIGHTS_FILE, local_files_only=True)
        except hub.errors.LocalEntryNotFoundError:
            # The download itself would try for most of a minute to reach a hub that is not there.
            hub.HfApi().model_info(repository, timeout=_PATIENCE_S)
            path = hub.hf_hub_download(repository, WEIGHTS_FILE)
    except Exception as err:  # the HTTP library changed twice; its errors share no base with ours
        raise ModelLoadError(
            f"The weights of {name!r} cannot be fetched from {repository!r} ({_line(err)}). "
            "Give a local file with --weights FILE, or train with --from-scratch."
        ) from err
    return read_weights(Path(path))


def preprocess_of(model: nn.Module, weights: Weights | None, size: int | None) -> Preprocess:
    """Find how a model's pictures are prepared: what its weights say, else what timm says.

    Args:
        model: A model of ours or of timm.
        weights: Weights it starts from; an edgeml spec or timm's keys in them are followed.
        size: Side of the input in pixels; None takes the model's own.
    """
    spec = weights.spec if weights else None
    if spec:
        return spec.preprocess if size is None else replace(spec.preprocess, size=(size, size))
    config: dict[str, Any] = {}
    if hasattr(model, "pretrained_cfg"):
        config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    side = size or config.get("input_size", (3, 128, 128))[1]
    preprocess = Preprocess(size=(side, side))
    told = {**config, **_timm_keys(weights.metadata if weights else {})}
    if "mean" not in told:
        return preprocess
    return replace(
        preprocess,
        interpolation=_interpolation(told["interpolation"]),
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
    )


def _timm_keys(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read `mean`, `std` and `interpolation` as text, as converters write them beside weights."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        if key in metadata:
            try:
                values = tuple(float(value) for value in metadata[key].split(","))
            except ValueError as err:
                raise SpecError(f"The weights' {key!r} is {metadata[key]!r}, not numbers.") from err
            if len(values) != 3:
                raise SpecError(f"The weights' {key!r} is {metadata[key]!r}, not three numbers.")
            found[key] = values
    if "interpolation" in metadata:
        found["interpolation"] = metadata["interpolation"]
    return found


def _interpolation(timm_name: str) -> Interpolation:
    """Map timm's filter to the nearest of ours; only bilinear is not some cubic."""
    return "linear" if timm_name == "bilinear" else "cubic"


def _check_keys(file: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    missing = [key for key in wanted if key not in given]
    extra = [key for key in given if key not in wanted]
    reshaped = [
        f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    faults = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", reshaped))
        if keys
    ]
    if faults:
        raise ModelLoadError(
            f"The weights in {file!r} do not fit the model: {'; '.join(faults)}. "
            "Check the name of the model, and --model-args."
        )


def _line(err: Exception) -> str:
    return " ".join(str(err).split())[:200] or type(err).__name__
