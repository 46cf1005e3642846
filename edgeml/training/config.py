"""TrainConfig: all that decides a run besides the pictures. Flags and YAML are made of it."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from edgeml.errors import InputError, needs
from edgeml.image.filters import Interpolation
from edgeml.image.preprocess import Resize
from edgeml.measure.thresholds import parse_objective
from edgeml.network.args import ModelArg

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from edgeml.data import SplitPlan

CONFIG_FILE = "config.yaml"
"""The settings of a run, all of them, in its folder."""

Augment = Literal["none", "colour_safe", "strong"]
LossName = Literal["bce", "asl", "poly", "twoway", "zlpr", "db"]
Amp = Literal["auto", "off", "bf16", "fp16"]
Channels3 = tuple[float, float, float]


@dataclass(frozen=True)
class Setting:
    """What people may know of a setting: help, range, and a heading for it and those after it."""

    help: str
    low: float = -math.inf
    high: float = math.inf
    panel: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that decides a training run, besides the pictures: equal ones give equal weights.

    Each field is a flag of `edgeml train` and a key of its YAML; its `Setting` says what it means.
    """

    model: Annotated[str, Setting("`cnn`, our own, or any model of timm", panel="Model")] = "cnn"
    model_args: Annotated[
        Mapping[str, ModelArg], Setting("KEY=VALUE for the model's constructor; repeat")
    ] = field(default_factory=dict)
    head: Annotated[
        Literal["linear", "csra"],
        Setting("what ends in the labels; csra attends to where a label is"),
    ] = "linear"
    weights: Annotated[Path | None, Setting("start from this .safetensors file or run folder")] = (
        None
    )
    pretrained: Annotated[bool, Setting("fetch timm's published weights")] = False
    teacher: Annotated[
        Path | None, Setting("learn from this run as well: knowledge distillation")
    ] = None
    distill: Annotated[float, Setting("the teacher's share of the loss", 0, 1)] = 0.5
    distill_temperature: Annotated[
        float, Setting("above 1 the teacher's answers are softened", 0.1, 100)
    ] = 2.0

    delimiter: Annotated[
        str,
        Setting(
            "between the labels in a folder's name; `/`: each folder level is a label",
            panel="Pictures",
        ),
    ] = "_"
    skip_bad: Annotated[
        bool, Setting("leave out what cannot be read, by name, where it is refused else")
    ] = False
    size: Annotated[
        int | None,
        Setting("side of the square input, in pixels; default: the model's own", 8, 4096),
    ] = None
    resize: Annotated[Resize, Setting("how a picture becomes square")] = "squash"
    interpolation: Annotated[
        Interpolation | None, Setting("filter of the resize; default: the weights' own")
    ] = None
    mean: Annotated[
        Channels3 | None, Setting("R,G,B on a scale of 0 to 1; default: the weights' own")
    ] = None
    std: Annotated[Channels3 | None, Setting("R,G,B; default: the weights' own")] = None
    augment: Annotated[
        Augment,
        Setting("colour_safe leaves hues alone; strong adds RandAugment, which does not"),
    ] = "colour_safe"
    mixup: Annotated[float, Setting("Beta parameter of mixup; 0: off", 0, 10)] = 0.0
    cutmix: Annotated[float, Setting("Beta parameter of CutMix; 0: off", 0, 10)] = 0.0

    groups: Annotated[
        Mapping[str, tuple[str, ...]],
        Setting("NAME=LABEL,LABEL,...: exactly one of these is present; repeat", panel="Labels"),
    ] = field(default_factory=dict)
    val: Annotated[float, Setting("share for validation, if the data are not split", 0, 0.9)] = 0.15
    test: Annotated[float, Setting("share for the test, if the data are not split", 0, 0.9)] = 0.15
    near: Annotated[bool, Setting("keep near duplicates on one side of the split")] = True
    hold_out: Annotated[
        tuple[str, ...], Setting("A+B: pictures with both labels go to the test side only")
    ] = ()

    loss: Annotated[LossName, Setting("what is made small", panel="Loss")] = "bce"
    group_loss: Annotated[
        Literal["bce", "softmax"],
        Setting("learn a group of which one label is present as one choice, or label by label"),
    ] = "bce"
    pos_weight: Annotated[
        Literal["none", "sqrt", "balanced"],
        Setting("weight of positives, from negatives / positives; for bce and asl"),
    ] = "none"
    pos_weight_cap: Annotated[float, Setting("the most that a positive weighs", 1, 1000)] = 10.0
    smoothing: Annotated[float, Setting("label smoothing", 0, 0.9)] = 0.0
    gamma_neg: Annotated[float, Setting("focus of asl on hard negatives", 0, 10)] = 4.0
    gamma_pos: Annotated[float, Setting("focus of asl on hard positives", 0, 10)] = 1.0
    asl_clip: Annotated[float, Setting("margin below which asl forgets negatives", 0, 0.5)] = 0.05

    epochs: Annotated[int, Setting("passes over the training pictures", 1, panel="Steps")] = 12
    # Batch normalisation has no variance over one picture.
    batch: Annotated[int, Setting("pictures a step", 2)] = 32
    accumulate: Annotated[int, Setting("batches whose gradients make one step", 1, 10000)] = 1
    lr: Annotated[float | None, Setting("peak learning rate; default: by model", 0, 10)] = None
    layer_decay: Annotated[
        float | None,
        Setting("each layer's share of the rate of the one above it; default: by model", 0.1, 1),
    ] = None
    weight_decay: Annotated[
        float, Setting("decoupled decay of weights, never of biases and norms", 0, 10)
    ] = 0.05
    warmup: Annotated[float, Setting("share of the steps in which the rate rises", 0, 0.9)] = 0.05
    head_epochs: Annotated[int, Setting("epochs at first that train the head alone", 0)] = 0
    freeze_bn: Annotated[bool, Setting("keep the statistics of batch normalisation")] = False
    clip: Annotated[float, Setting("longest gradient; 0: any", 0)] = 1.0
    ema: Annotated[
        float, Setting("decay of the averaged weights, the ones that are kept", 0, 0.999999)
    ] = 0.9998
    patience: Annotated[
        int, Setting("stop after so many epochs without a better one; 0: never", 0)
    ] = 0

    objective: Annotated[
        str, Setting("of thresholds: macro_f1, micro_f1, precision>=X or recall>=X", panel="Kept")
    ] = "macro_f1"
    calibrate: Annotated[bool, Setting("scale the logits so that probabilities are right")] = True

    seed: Annotated[int, Setting("the same seed gives the same weights", 0, panel="Machine")] = 0
    device: Annotated[str, Setting("auto, cpu, cuda, cuda:1, mps")] = "auto"
    amp: Annotated[Amp, Setting("half precision; auto: bf16 on a GPU that has it, else off")] = (
        "auto"
    )
    channels_last: Annotated[bool, Setting("memory format of CNNs; faster nearly everywhere")] = (
        True
    )
    compile: Annotated[bool, Setting("compile the model with torch.compile")] = False
    grad_checkpointing: Annotated[bool, Setting("less memory for more time")] = False
    threads: Annotated[int | None, Setting("of PyTorch; default: its own choice", 1, 1024)] = None
    workers: Annotated[
        int | None, Setting("threads that decode and augment; default: as cores", 1, 1024)
    ] = None
    cache: Annotated[bool, Setting("keep resized pictures for later runs")] = True
    save_every: Annotated[
        float, Setting("seconds between states that --resume can go on from", 0)
    ] = 120.0
    tensorboard: Annotated[bool, Setting("write TensorBoard logs into the run folder")] = False

    def __post_init__(self) -> None:
        for name, kind, setting in settings():
            _check(name, getattr(self, name), kind, setting)
        if self.weights is not None and self.pretrained:
            raise InputError("Both weights and pretrained are given; start from one of them.")
        if self.loss in ("twoway", "zlpr") and (self.smoothing or self.mixup or self.cutmix):
            raise InputError(
                f"The loss {self.loss!r} compares present labels with absent ones: it has no use "
                "for smoothing, mixup or cutmix. Set these to 0."
            )
        if self.pos_weight != "none" and self.loss not in ("bce", "asl"):
            raise InputError(f"pos_weight is of use to bce and asl only, not to {self.loss!r}.")
        self.plan  # noqa: B018  # checks the shares
        parse_objective(self.objective)

    @property
    def plan(self) -> SplitPlan:
        """How a data set without a split is divided."""
        from edgeml.data import SplitPlan  # not at the top: every command loads this module

        return SplitPlan(self.val, self.test, self.seed, self.near, self.hold_out)

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as YAML and JSON can hold them."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def to_yaml(self) -> str:
        """Write the settings as `from_yaml` reads them."""
        import yaml

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))


@cache
def settings() -> tuple[tuple[str, Any, Setting], ...]:
    """Give name, type and `Setting` of each field of TrainConfig, in order."""
    hints = get_type_hints(TrainConfig, include_extras=True)
    told = []
    panel = ""
    for one in fields(TrainConfig):
        kind, setting = get_args(hints[one.name])
        panel = setting.panel or panel
        told.append((one.name, kind, replace(setting, panel=panel)))
    return tuple(told)


def choices(kind: Any) -> tuple[str, ...]:
    """Give the values that a type allows, if it is a `Literal` or one that may be None."""
    if get_origin(kind) is Literal:
        return tuple(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(choice for part in get_args(kind) for choice in choices(part))
    return ()


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML of settings, some or all; what is missing keeps its default.

    Raises:
        InputError: It cannot be read, or has a key or a value that TrainConfig has not; names
            line and key, and the near match.
    """
    with needs("yaml", extra="train", to="read a .yaml"):
        import yaml
    try:
        # The tree before the values: it knows the lines.
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"Cannot read {str(path)!r}: {err.strerror}.") from err
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as err:
        raise InputError(f"{str(path)!r} is no YAML: {' '.join(str(err).split())}.") from err
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{str(path)!r} holds no settings; expected lines such as 'epochs: 20'.")
    lines = {key.value: key.start_mark.line + 1 for key, _ in tree.value} if tree else {}
    return {
        name: _read(f"{path.name}, line {lines.get(str(name), 1)}", name, value)
        for name, value in values.items()
    }


def _read(where: str, name: object, value: object) -> object:
    kinds = {known: kind for known, kind, _ in settings()}
    if name not in kinds:
        near = difflib.get_close_matches(str(name), kinds, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{where}: there is no setting {str(name)!r}{hint}")
    from pydantic import ValidationError

    try:
        # Not strict: YAML 1.1 takes 1e-3 for text.
        return _adapter(kinds[str(name)]).validate_python(value)
    except ValidationError as err:
        told = err.errors(include_url=False)[0]["msg"]
        raise InputError(f"{where}: {name} is {value!r}: {told}.") from err


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


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
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{name} is {value!r}; known are {', '.join(known)}{hint}.")


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
