"""Weights to start from, and the preprocessing that they were trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

import timm
from safetensors import SafetensorError, safe_open
from timm.data.config import resolve_model_data_config
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from edgeml.errors import ModelLoadError, SpecError
from edgeml.image.filters import Interpolation
from edgeml.image.preprocess import Preprocess
from edgeml.network.args import ModelArg
from edgeml.network.card import Card, card_of_config, read_card
from edgeml.network.heads import CsraHead, Head, head_layers
from edgeml.network.model import head_of
from edgeml.network.names import CNN, full_name
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_in

WEIGHTS_FILE = "model.safetensors"
"""The weights in a run folder, and in a repository of timm on the Hugging Face hub."""

MODEL_KEY = "model"
"""Where `Built` stands in the metadata of a checkpoint, as JSON."""

# Modules of timm whose networks take `pad_type`.
_PADDED_EITHER_WAY = ("efficientnet", "mobilenetv3")

# Seconds after which the hub counts as unreachable.
_PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build_model` was given, besides the labels."""

    name: str
    args: Mapping[str, ModelArg]
    head: Head = "linear"

    def to_json(self) -> str:
        """Write it as one line; a linear head goes without saying, as it did before others came."""
        head = {} if self.head == "linear" else {"head": self.head}
        return json.dumps({"name": self.name, "args": dict(self.args), **head})

    @classmethod
    def from_json(cls, text: str, file: str) -> Built:
        """Read what `to_json` wrote into a file.

        Raises:
            SpecError: It names no model.
        """
        try:
            told = json.loads(text)
            name, args, head = told["name"], told["args"], told.get("head", "linear")
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise SpecError(f"{file!r} does not name its model: {text[:80]!r}.") from err
        if not isinstance(name, str) or not isinstance(args, dict) or head not in get_args(Head):
            raise SpecError(f"{file!r} does not name its model: {text[:80]!r}.")
        return cls(name=name, args=args, head=head)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what their file says of itself.

    Attributes:
        path: The .safetensors file.
        tensors: By name, on the CPU.
        metadata: Of the file, as it stands there.
        card: How they were trained, as far as file, folder or hub say so.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    card: Card = field(default_factory=Card)

    @property
    def spec(self) -> ModelSpec | None:
        """The spec, if edgeml wrote the file."""
        return spec_in(self.metadata)

    @property
    def built(self) -> Built | None:
        """How its model was built, if edgeml wrote the file."""
        text = self.metadata.get(MODEL_KEY) if self.spec else None
        return None if text is None else Built.from_json(text, self.path.name)


def read_weights(path: Path) -> Weights:
    """Read a .safetensors file, or that of a run folder. Pickles are never opened.

    Raises:
        ModelLoadError: The file is missing, damaged, or of another format.
        SpecError: It says of itself what makes no sense.
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
            metadata = dict(opened.metadata() or {})
    except (SafetensorError, OSError) as err:
        raise ModelLoadError(f"{file.name!r} cannot be read as safetensors: {err}.") from err
    weights = Weights(file, tensors, metadata)
    card = _card_of_run(weights) if weights.spec else read_card(file, metadata)
    return replace(weights, card=card)


def _card_of_run(weights: Weights) -> Card:
    """Read what edgeml itself wrote into the file; the config.json beside it is of the training."""
    spec, built = cast(ModelSpec, weights.spec), weights.built
    args = dict(built.args) if built else {}
    args.pop("img_size", None)
    return Card(
        architecture=full_name(built.name) if built else None,
        args=args,
        size=spec.preprocess.size,
        licence=spec.provenance.weights_license,
    )


def load_weights(model: nn.Module, weights: Weights, labels: Sequence[str]) -> bool:
    """Put weights into a model; say whether its head came with them.

    The head is left as it is, to be trained anew, if the file's is of another kind or width, or
    for other labels. Position embeddings of a transformer are resampled if it sees another size.

    Raises:
        ModelLoadError: The weights are of another architecture, or tensors besides the head are
            missing, left over or of another shape.
    """
    _check_architecture(model, weights)
    wanted = model.state_dict()
    tensors = {**weights.tensors, **_resampled_positions(model, weights)}
    head = {
        f"{layer}.{name}"
        for layer, module in head_layers(model).items()
        for name, _ in module.named_parameters()
    }
    spec, built = weights.spec, weights.built
    with_head = (
        (spec is None or spec.labels == tuple(labels))
        and (built.head if built else "linear") == head_of(model)
        and all(key in tensors and tensors[key].shape == wanted[key].shape for key in head)
    )
    left_out = set() if with_head else head | _replaced(model)
    expected = {key: value for key, value in wanted.items() if key not in left_out}
    given = {key: value for key, value in tensors.items() if key not in left_out}
    _check_keys(weights.path.name, expected, given)
    model.load_state_dict(given, strict=False)
    return with_head


def _resampled_positions(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """Stretch the grid of position embeddings to the model's, as timm does with its own weights."""
    theirs, mine = weights.tensors.get("pos_embed"), getattr(model, "pos_embed", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if theirs is None or mine is None or grid is None or theirs.shape == mine.shape:
        return {}
    if theirs.ndim != 3 or theirs.shape[2] != mine.shape[2]:
        return {}  # of another model: the check of the keys says so
    prefix = 0 if getattr(model, "no_embed_class", False) else cast(int, model.num_prefix_tokens)
    return {"pos_embed": resample_abs_pos_embed(theirs, grid, num_prefix_tokens=prefix)}


def _replaced(model: nn.Module) -> frozenset[str]:
    heads = (module.replaced for module in model.modules() if isinstance(module, CsraHead))
    return next(heads, frozenset())


def _check_architecture(model: nn.Module, weights: Weights) -> None:
    """Refuse weights of another network even if they fit: `tf_` twins differ in the padding alone.

    Raises:
        ModelLoadError: Names both.
    """
    told, config = weights.card.architecture, getattr(model, "pretrained_cfg", None)
    mine = config["architecture"] if config else CNN
    if told is None or told.split(".")[0] not in (CNN, *timm.list_models()):
        return  # the names of the tensors will tell
    if told.split(".")[0] != mine:
        raise ModelLoadError(
            f"The weights in {weights.path.name!r} are of {told!r}, the model is {mine!r}: take "
            f"--model {told}."
        )


def published_weights(name: str) -> Weights:
    """Fetch timm's published weights of a model: from the local cache, else from the hub.

    Raises:
        ModelLoadError: None are published as safetensors, or the hub cannot be reached.
    """
    import huggingface_hub as hub

    name = full_name(name)
    config = None if name == CNN else timm.models.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config else None
    if config is None or repository is None:
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
    return replace(read_weights(Path(path)), card=card_of_config(config))


def padding_note(name: str, weights: Weights, args: Mapping[str, ModelArg]) -> str | None:
    """Warn of weights that do not say how their network pads, where networks differ in that.

    Weights from TensorFlow pad unevenly (`pad_type="same"`), others do not. The wrong choice costs
    MobileNetV2 9 points of top-1, and nothing else shows it.
    """
    known = weights.card.architecture or "pad_type" in weights.card.args or "pad_type" in args
    architecture = full_name(name).split(".")[0]
    if known or not timm.models.is_model_in_modules(architecture, _PADDED_EITHER_WAY):
        return None
    return (
        f"warning: {weights.path.name!r} does not say how its network pads; if it comes from "
        "TensorFlow, give --model-args pad_type=same"
    )


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
    card = weights.card if weights else Card()
    own = card.size or config.get("input_size", (3, 128, 128))[1:]
    preprocess = Preprocess(size=own if size is None else (size, size))
    filter_name = card.interpolation or config.get("interpolation")
    return replace(
        preprocess,
        interpolation=_interpolation(filter_name) if filter_name else preprocess.interpolation,
        mean=card.mean or config.get("mean", preprocess.mean),
        std=card.std or config.get("std", preprocess.std),
    )


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
