"""TrainConfig: every setting of a run, from which flags and YAML keys are generated."""

# ruff: noqa: RUF009  (`_setting` returns a field)
from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from edgeml.errors import InputError, needs
from edgeml.image.modes import Interpolation, Resize
from edgeml.measure.thresholds import parse_objective
from edgeml.network.card import ModelArg

if TYPE_CHECKING:
    from edgeml.data import SplitPlan
CONFIG_FILE = "config.yaml"
"""The file in a run folder that holds all settings."""
Augment = Literal["none", "colour_safe", "strong"]
LossName = Literal["bce", "asl", "poly", "twoway", "zlpr", "db"]
Amp = Literal["auto", "off", "bf16", "fp16"]
Channels3 = tuple[float, float, float]


@dataclass(frozen=True)
class Setting:
    """The help text and range of a setting, and a heading for it and the settings after it."""

    help: str
    low: float = -math.inf
    high: float = math.inf
    panel: str = ""


def _setting(
    default: Any, help: str, low: float = -math.inf, high: float = math.inf, *, panel: str = ""
) -> Any:
    """Return a field of TrainConfig with its `Setting`."""
    metadata = {"setting": Setting(help, low, high, panel)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run: with the same images, equal settings give equal weights.

    Each field is a flag of `edgeml train` and a key of its YAML; its `Setting` explains it.
    """

    model: str = _setting("cnn", "`cnn` (our own small network) or a timm model", panel="Model")
    model_args: Mapping[str, ModelArg] = _setting(
        {}, "KEY=VALUE for the model's constructor; repeatable"
    )
    head: Literal["linear", "csra"] = _setting(
        "linear", "final layer; csra attends to the position of a label"
    )
    weights: Path | None = _setting(None, "initial weights: .safetensors, .pth or .ckpt, or a run")
    pretrained: bool = _setting(False, "download timm's published weights")
    teacher: Path | None = _setting(None, "also learn from this run: knowledge distillation")
    distill: float = _setting(0.5, "share of the loss that the teacher contributes", 0, 1)
    distill_temperature: float = _setting(
        2.0, "temperature; above 1 softens the teacher's outputs", 0.1, 100
    )
    delimiter: str = _setting(
        "_",
        "separator of labels in folder names; `/`: each folder level is a label",
        panel="Images",
    )
    separator: str | None = _setting(
        None, "separator of labels in a cell of a table, or tab; default: ;"
    )
    labels: tuple[str, ...] = _setting((), "labels to read, or their columns; default: all")
    ignore_labels: tuple[str, ...] = _setting((), "labels or columns of a table to leave out")
    root: Path | None = _setting(
        None, "folder that paths in a table start from, if not the one it states"
    )
    skip_bad: bool = _setting(
        False, "skip unreadable images and list them, instead of refusing them"
    )
    size: int | None = _setting(
        None, "side of the square input in pixels; default: from the model", 8, 4096
    )
    resize: Resize = _setting("squash", "how to make an image square")
    interpolation: Interpolation | None = _setting(None, "resize filter; default: from the weights")
    mean: Channels3 | None = _setting(None, "R,G,B on a scale of 0 to 1; default: from the weights")
    std: Channels3 | None = _setting(None, "R,G,B; default: from the weights")
    augment: Augment = _setting(
        "colour_safe", "colour_safe preserves hues; strong adds RandAugment, which changes them"
    )
    mixup: float = _setting(0.0, "beta parameter of mixup; 0: off", 0, 10)
    cutmix: float = _setting(0.0, "beta parameter of CutMix; 0: off", 0, 10)
    groups: Mapping[str, tuple[str, ...]] | None = _setting(
        {},
        "NAME=LABEL,LABEL,...: exactly one is present; repeatable; none: no groups; default: those "
        "of the data, and all labels if each image has one",
        panel="Labels",
    )
    val: float = _setting(0.15, "share for validation if the data have no split", 0, 0.9)
    test: float = _setting(0.15, "share for testing if the data have no split", 0, 0.9)
    near: bool = _setting(True, "keep near duplicates in the same split")
    hold_out: tuple[str, ...] = _setting(
        (), "A+B: put images with both labels into the test split only"
    )
    loss: LossName = _setting("bce", "loss function", panel="Loss")
    group_loss: Literal["bce", "softmax"] = _setting(
        "bce", "bce: learn each label by itself; softmax: learn a group as one choice"
    )
    pos_weight: Literal["none", "sqrt", "balanced"] = _setting(
        "none", "weight of positives, from negatives / positives; for bce and asl"
    )
    pos_weight_cap: float = _setting(10.0, "maximum weight of a positive", 1, 1000)
    smoothing: float = _setting(0.0, "label smoothing", 0, 0.9)
    gamma_neg: float = _setting(4.0, "focus of asl on hard negatives", 0, 10)
    gamma_pos: float = _setting(1.0, "focus of asl on hard positives", 0, 10)
    asl_clip: float = _setting(0.05, "margin below which asl ignores negatives", 0, 0.5)
    epochs: int = _setting(12, "passes over the training images", 1, panel="Steps")
    # Batch normalisation has no variance over a single image.
    batch: int = _setting(32, "images per batch", 2)
    accumulate: int = _setting(1, "batches per optimizer step", 1, 10000)
    lr: float | None = _setting(None, "peak learning rate; default: depends on the model", 0, 10)
    layer_decay: float | None = _setting(
        None, "ratio of learning rates of adjacent layers; default: by model", 0.1, 1
    )
    weight_decay: float = _setting(0.05, "decoupled weight decay, not for biases and norms", 0, 10)
    warmup: float = _setting(0.05, "share of steps in which the learning rate rises", 0, 0.9)
    head_epochs: int = _setting(0, "initial epochs that train the head only", 0)
    freeze_bn: bool = _setting(False, "freeze the layers of batch normalisation")
    clip: float = _setting(1.0, "maximum gradient norm; 0: no limit", 0)
    ema: float = _setting(0.9998, "decay of the averaged weights, which are saved", 0, 0.999999)
    patience: int = _setting(0, "stop after this many epochs without improvement; 0: never", 0)
    objective: str = _setting(
        "macro_f1", "for thresholds: macro_f1, micro_f1, precision>=X, recall>=X", panel="Result"
    )
    calibrate: bool = _setting(True, "scale the logits to calibrate probabilities")
    seed: int = _setting(0, "the same seed gives the same weights", 0, panel="Machine")
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1, mps")
    amp: Amp = _setting("auto", "mixed precision; auto: bf16 on a GPU that supports it, else off")
    channels_last: bool = _setting(True, "memory format of CNNs; faster on most devices")
    compile: bool = _setting(False, "compile the model with torch.compile")
    grad_checkpointing: bool = _setting(False, "use less memory and more time")
    threads: int | None = _setting(None, "threads of PyTorch; default: its own choice", 1, 1024)
    workers: int | None = _setting(
        None, "threads that decode and augment; default: one per core", 1, 1024
    )
    cache: bool = _setting(True, "cache resized images for later runs")
    save_every: float = _setting(120.0, "seconds between saved states for --resume", 0)
    tensorboard: bool = _setting(False, "write TensorBoard logs into the run folder")

    def __post_init__(self) -> None:
        for name, kind, setting in settings():
            _check(name, getattr(self, name), kind, setting)
        if self.weights is not None and self.pretrained:
            raise InputError("weights and pretrained exclude each other; use one of them.")
        if self.loss in ("twoway", "zlpr") and (self.smoothing or self.mixup or self.cutmix):
            raise InputError(
                f"The loss {self.loss!r} compares present labels with absent ones and does not "
                "support smoothing, mixup or cutmix. Set these to 0."
            )
        if self.pos_weight != "none" and self.loss not in ("bce", "asl"):
            raise InputError(
                f"The loss {self.loss!r} does not support pos_weight; only bce and asl do."
            )
        self.plan  # noqa: B018  # checks the shares
        parse_objective(self.objective)

    @property
    def plan(self) -> SplitPlan:
        """The plan by which a data set without a split is split."""
        from edgeml.data import SplitPlan  # not at the top: every command loads this module

        return SplitPlan(self.val, self.test, self.seed, self.near, self.hold_out)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as values for YAML and JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def to_yaml(self) -> str:
        """Return the settings as YAML for `read_settings`."""
        import yaml

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))


@cache
def settings() -> tuple[tuple[str, Any, Setting], ...]:
    """Return name, type and `Setting` of each field of TrainConfig, in order."""
    hints = get_type_hints(TrainConfig)
    listed, panel = [], ""
    for one in fields(TrainConfig):
        setting = one.metadata["setting"]
        panel = setting.panel or panel
        listed.append((one.name, hints[one.name], replace(setting, panel=panel)))
    return tuple(listed)


def choices(kind: Any) -> tuple[str, ...]:
    """Return the values of a `Literal` type, or of a union with one; others have none."""
    if get_origin(kind) is Literal:
        return tuple(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(choice for part in get_args(kind) for choice in choices(part))
    return ()


def read_settings(path: Path) -> dict[str, Any]:
    """Read some or all settings from a YAML file.

    Raises:
        InputError: It cannot be read, or has an unknown key or an invalid value; names line and
            key, and suggests a similar key.
    """
    with needs("yaml", extra="train", to="read a .yaml"):
        import yaml

    class Texts(yaml.SafeLoader):
        """Leaves all but null as text: the type of a setting decides, as it does for flags.

        YAML 1.1 reads `off` and `no` as false, which are choices and labels, and 1e-3 as text.
        """

        yaml_implicit_resolvers = {  # noqa: RUF012
            start: [rule for rule in rules if rule[0] == "tag:yaml.org,2002:null"]
            for start, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        text = path.read_text(encoding="utf-8")
        # The values alone do not have line numbers.
        tree = yaml.compose(text, Loader=Texts)
        values = yaml.load(text, Loader=Texts)
    except OSError as err:
        raise InputError(f"Cannot read {str(path)!r}: {err.strerror}.") from err
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as err:
        raise InputError(f"{str(path)!r} is not valid YAML: {' '.join(str(err).split())}.") from err
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(
            f"{str(path)!r} contains no settings; expected lines such as 'epochs: 20'."
        )
    lines = {key.value: key.start_mark.line + 1 for key, _ in tree.value} if tree else {}
    return {
        name: _read(f"{path.name}, line {lines.get(str(name), 1)}", name, value)
        for name, value in values.items()
    }


def _read(where: str, name: object, value: object) -> object:
    kinds = {known: kind for known, kind, _ in settings()}
    if name not in kinds:
        hint = _hint(str(name), kinds, cutoff=0.5)
        raise InputError(f"{where}: there is no setting {str(name)!r}{hint}")
    from pydantic import TypeAdapter, ValidationError

    nothing = {"off", "none"} & {*choices(kinds[str(name)])}
    if nothing and value is not None and str(value).lower() in ("off", "no", "false", "none"):
        (value,) = nothing
    if name == "model_args" and isinstance(value, dict):
        value = {
            key: scalar(item) if isinstance(item, str) else item for key, item in value.items()
        }
    if name == "groups" and value == "none":
        return None
    try:
        return TypeAdapter(kinds[str(name)]).validate_python(value)
    except ValidationError as err:
        reason = err.errors(include_url=False)[0]["msg"]
        raise InputError(f"{where}: {name} is {value!r}: {reason}.") from err


def scalar(text: str) -> ModelArg:
    """Return the number or the true/false that a text looks like; otherwise the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check(name: str, value: object, kind: Any, setting: Setting) -> None:
    if value is None:
        return
    if isinstance(value, (int, float)) and not setting.low <= value <= setting.high:
        bounds = f"{setting.low:g} or more"
        if math.isfinite(setting.high):
            bounds = f"{setting.low:g} to {setting.high:g}"
        raise InputError(f"{name} is {value}; it must be {bounds}.")
    known = choices(kind)
    if known and value not in known:
        hint = _hint(str(value), known)
        raise InputError(f"{name} is {value!r}; the choices are {', '.join(known)}{hint}.")


def _hint(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def _plain(value: object) -> object:
    match value:
        case Path():
            return str(value)
        case tuple():
            return list(value)
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case _:
            return value
