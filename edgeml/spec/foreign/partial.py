"""Parts of a spec, as files, graphs and people state them, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from edgeml.image.modes import Interpolation, Resize
from edgeml.image.preprocess import Preprocess
from edgeml.spec.model_spec import Activation, InputType, Layout, ModelSpec, Task

ARGUMENT = "argument"
"""The source of what a person states."""

GRAPH = "the graph"
"""The source of what a model's graph states."""


@dataclass(frozen=True, kw_only=True)
class SpecFields:
    """Fields of `ModelSpec` and its `Preprocess`; None is not stated.

    There is one threshold for all labels. The output is named if a network has several, and its
    activation is `none` if the graph ends in it.
    """

    labels: Sequence[str] | None = None
    threshold: float | None = None
    task: Task | None = None
    activation: Activation | None = None
    output: str | None = None
    layout: Layout | None = None
    size: tuple[int, int] | None = None
    resize: Resize | None = None
    crop: float | None = None
    pad: int | None = None
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: Literal["rgb", "bgr"] | None = None


@dataclass(frozen=True, kw_only=True)
class SpecOverrides(SpecFields):
    """What a person states about a model; it wins over what the files state.

    `like` is a member of one of torchvision's enums of weights, whose transforms are used.
    """

    like: Any = None


NO_OVERRIDES = SpecOverrides()


@dataclass(frozen=True, kw_only=True)
class PartialSpec(SpecFields):
    """Fields of a spec, and the source of each that is not None."""

    input: InputType | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Return the fields that are not None."""
        return {name: getattr(self, name) for name in self.sources}


def stated(source: str, **values: Any) -> PartialSpec:
    """Return a partial spec whose fields all come from one source."""
    known = {name: value for name, value in values.items() if value is not None}
    return PartialSpec(**known, sources=dict.fromkeys(known, source))


def merge(*parts: PartialSpec) -> PartialSpec:
    """Return each field as the first part that states it does, with its source."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for part in reversed(parts):
        values |= part.values()
        sources |= part.sources
    return PartialSpec(**values, sources=sources)


@dataclass(frozen=True, kw_only=True)
class SpecWithSources:
    """A spec, and the source of each of its fields and those of its preprocessing.

    A source is a file and key, `the graph`, `argument` or `default`.
    """

    spec: ModelSpec
    sources: Mapping[str, str]


def names_of(kind: type) -> list[str]:
    """Return the names of a dataclass's fields."""
    return [one.name for one in fields(kind)]


def spec_sources(source: str, sources: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a source for every field of a spec: its own, or else the common `source`."""
    names = [name for name in names_of(ModelSpec) if name != "preprocess"] + names_of(Preprocess)
    return {name: (sources or {}).get(name, source) for name in names}
