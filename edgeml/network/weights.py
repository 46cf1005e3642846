"""Weights to start from, and the preprocessing with which they were trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

import timm
from timm.data.config import resolve_model_data_config
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from edgeml.errors import ModelLoadError, SpecError
from edgeml.image.preprocess import Preprocess
from edgeml.network.card import Card, ModelArg, card_of_config, read_card
from edgeml.network.heads import CsraHead, Head, head_layers
from edgeml.network.model import head_of, one_line
from edgeml.network.names import CNN, full_name
from edgeml.network.weight_files import adapted, read_tensors
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_in

WEIGHTS_FILE = "model.safetensors"
"""The weights file of a run folder, and of a timm repository on the Hugging Face hub."""
MODEL_KEY = "model"
"""The metadata key of a checkpoint that holds its `NetworkDefinition` as JSON."""
# Modules of timm whose networks have the argument `pad_type`.
_PADDED_EITHER_WAY = ("efficientnet", "mobilenetv3")
# Seconds after which the hub counts as unreachable.
_HUB_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class NetworkDefinition:
    """The arguments of `build_model`, except for the labels."""

    name: str
    args: Mapping[str, ModelArg]
    head: Head = "linear"

    def to_json(self) -> str:
        """Return one line of JSON; a linear head is omitted, as in files older than other heads."""
        head = {} if self.head == "linear" else {"head": self.head}
        return json.dumps({"name": self.name, "args": dict(self.args), **head})

    @classmethod
    def from_json(cls, text: str, file: str) -> NetworkDefinition:
        """Read the output of `to_json` from the metadata of `file`; complete the model's name.

        Raises:
            SpecError: The text does not name a model.
            ModelLoadError: The model does not exist.
        """
        try:
            fields = json.loads(text)
            name, args, head = fields["name"], fields["args"], fields.get("head", "linear")
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise SpecError(f"{file!r} does not name its model: {text[:80]!r}.") from err
        if not isinstance(name, str) or not isinstance(args, dict) or head not in get_args(Head):
            raise SpecError(f"{file!r} does not name its model: {text[:80]!r}.")
        return cls(name=full_name(name), args=args, head=head)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, on the CPU, with the unchanged metadata of their .safetensors file.

    The card states how the weights were trained, as far as file, folder or hub do.
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
    def definition(self) -> NetworkDefinition | None:
        """The definition of the network, if edgeml wrote the file."""
        text = self.metadata.get(MODEL_KEY) if self.spec else None
        return None if text is None else NetworkDefinition.from_json(text, self.path.name)


def read_weights(path: Path) -> Weights:
    """Read a .safetensors file, the one in a run folder, or tensors in a checkpoint of PyTorch.

    Raises:
        ModelLoadError: The file is missing, damaged, of another format, or holds more than tensors.
        SpecError: Its metadata are invalid.
    """
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelLoadError(f"There are no weights {str(file)!r}. Check the path.")
    tensors, metadata = read_tensors(file)
    weights = Weights(file, tensors, metadata)
    card = _card_of_run(weights) if weights.spec else read_card(file, metadata)
    return replace(weights, card=card)


def _card_of_run(weights: Weights) -> Card:
    """Return the card of an edgeml checkpoint; no timm config.json is read for it."""
    spec, definition = cast(ModelSpec, weights.spec), weights.definition
    args = dict(definition.args) if definition else {}
    args.pop("img_size", None)
    return Card(
        architecture=definition.name if definition else None,
        args=args,
        size=spec.preprocess.size,
        licence=spec.provenance.weights_license,
    )


def load_weights(model: nn.Module, weights: Weights, labels: Sequence[str]) -> bool:
    """Load weights into a model; return whether they include its head.

    The head is not loaded if the file has a head of another kind, width or label list. Position
    embeddings of a transformer are resampled if its input size differs.

    Raises:
        ModelLoadError: The weights are of another architecture, or tensors outside the head are
            missing, superfluous or of another shape.
    """
    _check_architecture(model, weights)
    expected = model.state_dict()
    tensors = adapted(weights.tensors, model)
    tensors |= _resampled_positions(model, tensors)
    head = {
        f"{layer}.{name}"
        for layer, module in head_layers(model).items()
        for name, _ in module.named_parameters()
    }
    spec, definition = weights.spec, weights.definition
    with_head = (
        (spec is None or spec.labels == tuple(labels))
        and (definition.head if definition else "linear") == head_of(model)
        and all(key in tensors and tensors[key].shape == expected[key].shape for key in head)
    )
    replaced = (part.replaced for part in model.modules() if isinstance(part, CsraHead))
    skipped = set() if with_head else head | next(replaced, frozenset())
    expected = {key: value for key, value in expected.items() if key not in skipped}
    tensors = {key: value for key, value in tensors.items() if key not in skipped}
    _check_keys(weights.path.name, expected, tensors)
    model.load_state_dict(tensors, strict=False)
    return with_head


def _resampled_positions(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Resample position embeddings to the model's grid, as timm does with its own weights."""
    theirs, mine = tensors.get("pos_embed"), getattr(model, "pos_embed", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if theirs is None or mine is None or grid is None or theirs.shape == mine.shape:
        return {}
    if theirs.ndim != 3 or theirs.shape[2] != mine.shape[2]:
        return {}  # of another model; `_check_keys` reports it
    prefix = 0 if getattr(model, "no_embed_class", False) else cast(int, model.num_prefix_tokens)
    return {"pos_embed": resample_abs_pos_embed(theirs, grid, num_prefix_tokens=prefix)}


def _check_architecture(model: nn.Module, weights: Weights) -> None:
    """Refuse weights of another network even if they fit: `tf_` variants differ only in padding."""
    stated, config = weights.card.architecture, getattr(model, "pretrained_cfg", None)
    mine = config["architecture"] if config else CNN
    if stated is None or stated.split(".")[0] not in (CNN, *timm.list_models()):
        return  # then only the tensor names are checked
    if stated.split(".")[0] != mine:
        raise ModelLoadError(
            f"The weights in {weights.path.name!r} are of {stated!r}, but the model is {mine!r}. "
            f"Use --model {stated}."
        )


def published_weights(name: str) -> Weights:
    """Return timm's published weights of a model, from the local cache or else from the hub.

    Raises:
        ModelLoadError: No weights are published as safetensors, or the hub cannot be reached.
    """
    import huggingface_hub as hub

    config = None if name == CNN else timm.models.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config else None
    if config is None or repository is None:
        raise ModelLoadError(f"No weights are published for {name!r}. Train with --from-scratch.")
    try:
        try:
            path = hub.hf_hub_download(repository, WEIGHTS_FILE, local_files_only=True)
        except hub.errors.LocalEntryNotFoundError:
            # The download itself would try for most of a minute to reach an unreachable hub.
            hub.HfApi().model_info(repository, timeout=_HUB_TIMEOUT_S)
            path = hub.hf_hub_download(repository, WEIGHTS_FILE)
    except Exception as err:  # the HTTP errors of the library changed twice
        raise ModelLoadError(
            f"The weights of {name!r} cannot be fetched from {repository!r} ({one_line(err)}). "
            "Pass a local file with --weights FILE, or train with --from-scratch."
        ) from err
    return replace(read_weights(Path(path)), card=card_of_config(config))


def padding_note(name: str, weights: Weights, args: Mapping[str, ModelArg]) -> str | None:
    """Return a warning if the padding of the network matters and the weights do not state it.

    Networks from TensorFlow pad unevenly (`pad_type="same"`), others do not. The wrong choice costs
    MobileNetV2 9 points of top-1 accuracy without any error. `name` is a full name.
    """
    known = weights.card.architecture or "pad_type" in weights.card.args or "pad_type" in args
    architecture = name.partition(".")[0]
    if known or not timm.models.is_model_in_modules(architecture, _PADDED_EITHER_WAY):
        return None
    return (
        f"warning: {weights.path.name!r} does not state the padding of its network; if it comes "
        "from TensorFlow, use --model-args pad_type=same"
    )


def preprocess_of(model: nn.Module, weights: Weights | None, size: int | None) -> Preprocess:
    """Return the preprocessing of a model: that of its weights, else timm's default.

    `size` is the side length of the input in pixels; None uses the model's default.
    """
    spec = weights.spec if weights else None
    if spec:
        return spec.preprocess if size is None else replace(spec.preprocess, size=(size, size))
    config: dict[str, Any] = {}
    if hasattr(model, "pretrained_cfg"):
        config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    card = weights.card if weights else Card()
    default = card.size or config.get("input_size", (3, 128, 128))[1:]
    preprocess = Preprocess(size=default if size is None else (size, size))
    interpolation = preprocess.interpolation
    if name := card.interpolation or config.get("interpolation"):
        interpolation = "linear" if name == "bilinear" else "cubic"  # all others are kinds of cubic
    return replace(
        preprocess,
        interpolation=interpolation,
        mean=card.mean or config.get("mean", preprocess.mean),
        std=card.std or config.get("std", preprocess.std),
    )


def _check_keys(file: str, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    # Batches are counted for training alone, and older files do not.
    missing = [
        key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")
    ]
    extra = [key for key in tensors if key not in expected]
    reshaped = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in tensors and tensors[key].shape != expected[key].shape
    ]
    faults = [
        f"{len(keys)} {fault} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for fault, keys in (
            ("missing", missing),
            ("unknown", extra),
            ("of another shape", reshaped),
        )
        if keys
    ]
    if faults:
        raise ModelLoadError(
            f"The weights in {file!r} do not fit the model: {'; '.join(faults)}. "
            "Check --model and --model-args."
        )
