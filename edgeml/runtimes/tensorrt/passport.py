"""What stands beside a TensorRT engine: which machine it is for, and what it means.

An engine is native code for one GPU and one TensorRT, so it is checked before any library sees it:
that its bytes are those that were built, then that they were built for this machine. The engine
itself stays a pure plan, which `trtexec` reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgeml.errors import EngineMismatchError, ModelLoadError, SpecError
from edgeml.files import write_text
from edgeml.spec.model_spec import ModelSpec, Precision, first_fault
from edgeml.spec.storage import sidecar_path

FORMAT = "edgeml.engine/1"

Library = Literal["tensorrt", "tensorrt_rtx"]

Portable = Literal["exact", "same-capability", "ampere+", "version"]

NAMES: dict[Library, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: As in the ONNX.
        dtype: In numpy's words: `float32`, `uint8`.
        shape: None where the size is chosen at each run.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Passport:
    """An engine's papers.

    Attributes:
        library: Which of NVIDIA's two libraries built it; the other cannot read it.
        version: Of that library, whole: `10.3.0`, `11.4.0.106`.
        cuda: The CUDA that the library was built for, None where it does not tell.
        driver: Of the machine that built it; None without one.
        gpu: The GPU that it was built on; None if it was built without one.
        compute_capability: Of that GPU, or of all GPUs that it was compiled for: `8.6`.
        portable: Where else it runs. `exact`: on the same model of GPU only. `same-capability`: on
            GPUs of the capabilities listed. `ampere+`: on 8.0 and newer. `version`: with newer
            TensorRTs too, for which it carries host code of its own that they run.
        profile: The least, the usual and the greatest batch.
        inputs: One, if edgeml wrote it.
        outputs: One, if edgeml wrote it.
        plan_sha256: Of the engine.
        plan_bytes: Its size.
        onnx_sha256: Of the file that it was built from.
        precision: What the ONNX was exported as.
        layers: How many fused layers compute in what, by the type's name; empty if unknown.
        spec: What the model means.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    library: Library
    version: str
    cuda: str | None
    driver: str | None
    gpu: str | None
    compute_capability: tuple[str, ...]
    portable: Portable
    profile: tuple[int, int, int]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    precision: Precision
    layers: Mapping[str, int] = field(default_factory=dict)
    spec: ModelSpec

    def __post_init__(self) -> None:
        least, usual, greatest = self.profile
        if not 1 <= least <= usual <= greatest:
            raise SpecError(f"profile is {self.profile}; it must be 1 <= min <= opt <= max.")
        if not self.compute_capability and self.portable != "ampere+":
            raise SpecError("compute_capability is empty; it must name the GPUs that this is for.")
        for capability in self.compute_capability:
            if not re.fullmatch(r"\d+\.\d+", capability):
                raise SpecError(f"compute_capability has {capability!r}; expected such as '8.6'.")

    def to_json(self) -> str:
        """Write the passport as JSON, with its format first."""
        told = {"format": FORMAT, **asdict(self), "spec": json.loads(self.spec.to_json())}
        return json.dumps(told, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Passport:
        """Read what `to_json` wrote.

        Raises:
            SpecError: Not JSON, another format, or a field that is missing or wrong; names it.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as err:
            raise SpecError(f"it is not JSON: {err}") from err
        written_as = data.pop("format", None) if isinstance(data, dict) else None
        if written_as != FORMAT:
            raise SpecError(_other_format(written_as))
        try:
            spec = ModelSpec.from_json(json.dumps(data.get("spec")))
        except SpecError as err:
            raise SpecError(f"its spec is wrong: {err}") from err
        data["spec"] = json.loads(spec.to_json())
        del data["spec"]["format"]  # known by now, and not a field
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as err:
            raise SpecError(f"its {first_fault(err, 'passport')}") from err


def passport_path(engine: Path) -> Path:
    """Name an engine's passport: `model.engine.json` of `model.engine`."""
    return sidecar_path(engine)


def write_passport(passport: Passport, engine: Path) -> None:
    """Write a passport beside an engine, whole or not at all."""
    write_text(passport_path(engine), passport.to_json())


def read_passport(engine: Path) -> Passport:
    """Read the passport that stands beside an engine.

    Raises:
        EngineMismatchError: There is none, or it cannot be understood.
    """
    path = passport_path(engine)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise EngineMismatchError(
            f"{engine.name} has no passport: {path.name} is not beside it. An engine is native "
            "code, so it is not loaded unless its passport says what it is and for which GPU. "
            "Copy the passport along, or build the engine with edgeml export."
        ) from err
    except UnicodeDecodeError as err:
        raise EngineMismatchError(
            f"The passport {path.name} is not UTF-8 text. Copy it again, together with its engine."
        ) from err
    except OSError as err:
        raise EngineMismatchError(
            f"The passport {path.name} cannot be read: {err.strerror}."
        ) from err
    try:
        return Passport.from_json(text)
    except SpecError as err:
        raise EngineMismatchError(
            f"The passport {path.name} cannot be used: {str(err).rstrip('.')}."
        ) from err


def read_engine(engine: Path) -> tuple[Passport, bytes]:
    """Read an engine whose bytes are those that its passport names.

    The bytes that were hashed are the ones given, so no one can exchange the file in between.

    Raises:
        ModelLoadError: The engine cannot be read.
        EngineMismatchError: The passport is missing or wrong, or another engine's, or the engine
            was changed.
    """
    passport = read_passport(engine)
    try:
        plan = engine.read_bytes()
    except OSError as err:
        raise ModelLoadError(f"{engine.name} cannot be read: {err.strerror}.") from err
    digest = hashlib.sha256(plan).hexdigest()
    if digest == passport.plan_sha256:
        return passport, plan
    raise EngineMismatchError(_why_other_bytes(engine, passport, len(plan), digest))


def describe_engine(engine: Path) -> dict[str, Any]:
    """Say what the passport says, as JSON values; TensorRT is not asked, nor need it be here.

    Raises:
        ModelLoadError: The engine cannot be read.
        EngineMismatchError: It has no passport, or is not the engine that its passport names.
    """
    passport, plan = read_engine(engine)
    told = json.loads(passport.to_json())
    spec = told.pop("spec")
    for key in ("format", "library", "version", "plan_sha256", "plan_bytes"):
        told.pop(key)
    # The precision and the format are the spec's, under the names that other models have too.
    return {
        "path": str(engine),
        "bytes": len(plan),
        "sha256": passport.plan_sha256,
        "fits_passport": True,
        "runtime": f"{passport.library} {passport.version}",
        **told,
        **spec,
    }


def supersedes(new: Passport, old: Passport) -> bool:
    """Say whether an engine is of the same file for the same GPU, and of newer versions."""
    what = [(p.onnx_sha256, p.library, p.gpu, p.compute_capability) for p in (old, new)]
    versions = [(_numbers(p.version), _numbers(p.driver or "")) for p in (old, new)]
    older = all(before <= after for before, after in zip(*versions, strict=True))
    return what[0] == what[1] and older and versions[0] != versions[1]


def check(passport: Passport, *, library: Library, version: str, gpu: Gpu) -> None:
    """Refuse an engine that was built for another machine than this one.

    Args:
        passport: The engine's.
        library: The one that would run it.
        version: Of that library.
        gpu: Of this machine.

    Raises:
        EngineMismatchError: Says both sides.
    """
    check_library(passport, library)
    if why := _why_not_here(passport, version, gpu):
        raise EngineMismatchError(f"{why} {_again(library)}")


def check_library(passport: Passport, library: Library) -> None:
    """Refuse an engine of the other library, which need not be installed to know that.

    Raises:
        EngineMismatchError: Says both.
    """
    if library != passport.library:
        raise EngineMismatchError(
            f"This engine was built by {NAMES[passport.library]}; {NAMES[library]} was asked to "
            f"run it. {_again(library)}"
        )


def _why_not_here(passport: Passport, version: str, gpu: Gpu) -> str | None:
    if why := _why_other_version(passport, NAMES[passport.library], version):
        return why
    if passport.cuda and gpu.cuda and _numbers(passport.cuda)[0] > _numbers(gpu.cuda)[0]:
        return (
            f"This engine needs a driver for CUDA {passport.cuda}; the driver here, {gpu.driver}, "
            f"goes up to CUDA {gpu.cuda}. Update the driver."
        )
    return _why_other_gpu(passport, gpu)


def _why_other_version(passport: Passport, name: str, version: str) -> str | None:
    """Compare versions; of NVIDIA's rules, see the support matrix of TensorRT 11.4.

    Plans built as version-compatible run on later releases of their major, and those of 10 on 11.
    """
    if passport.version == version:
        return None
    built, here = _numbers(passport.version), _numbers(version)
    if passport.portable != "version":
        which = "an older" if built < here else "a newer"
        return (
            f"This engine was built by {which} {name}, {passport.version}; here is {version}, "
            "and an engine runs on no other version than its own."
        )
    if built > here:
        return (
            f"This version-compatible engine was built by {name} {passport.version}; it runs on "
            f"that and later ones, and here is {version}."
        )
    if built[0] != here[0] and (built[0], here[0]) != (10, 11):
        return (
            f"This version-compatible engine was built by {name} {passport.version}; here is "
            f"{version}, and only engines of 10 run on the next major version."
        )
    return None


def _why_other_gpu(passport: Passport, gpu: Gpu) -> str | None:
    here = f"{gpu.name} (compute capability {gpu.compute_capability})"
    listed = " or ".join(passport.compute_capability)
    if passport.portable == "ampere+":
        if _numbers(gpu.compute_capability) < (8, 0):
            return (
                "This engine is for GPUs of compute capability 8.0 (Ampere) and newer; "
                f"here is {here}."
            )
        return None
    if gpu.compute_capability not in passport.compute_capability:
        on = f"on {passport.gpu}, " if passport.gpu else ""
        return f"This engine was built {on}for compute capability {listed}; here is {here}."
    if passport.portable != "same-capability" and passport.gpu not in (None, gpu.name):
        return (
            f"This engine was built on {passport.gpu}; here is {here}, of the same compute "
            "capability, but the kernels were chosen for the other model."
        )
    return None


def _why_other_bytes(engine: Path, passport: Passport, size: int, digest: str) -> str:
    """Tell an engine that was damaged from one that was given another's passport."""
    mine = passport_path(engine).name
    if size == 0:
        return f"{engine.name} is empty; its passport names {passport.plan_bytes:,} bytes."
    for other in sorted(engine.parent.glob("*.engine.json")):
        with suppress(EngineMismatchError):
            neighbour = other.with_name(other.name.removesuffix(".json"))
            if other.name != mine and read_passport(neighbour).plan_sha256 == digest:
                return (
                    f"The passport {mine} belongs to another engine; {other.name} is the one of "
                    f"{engine.name}. Give each engine its own again."
                )
    if size < passport.plan_bytes:
        return (
            f"{engine.name} is cut short: it has {size:,} of the {passport.plan_bytes:,} bytes "
            "that its passport names. Copy it again."
        )
    if size > passport.plan_bytes:
        return (
            f"{engine.name} has {size:,} bytes, more than the {passport.plan_bytes:,} that its "
            f"passport names: {mine} is another engine's, or something was appended. "
            "Copy both again."
        )
    return (
        f"{engine.name} was changed: its sha256 is {digest[:12]}…, its passport names "
        f"{passport.plan_sha256[:12]}…. Copy both again, or build the engine anew."
    )


def _other_format(written_as: Any) -> str:
    if isinstance(written_as, str) and written_as.startswith("edgeml.engine/"):
        return f"it is of format {written_as!r}, newer than {FORMAT!r}: update edgeml"
    if written_as is None:
        return f"it does not say that its format is {FORMAT!r}, so it is no engine's passport"
    return f"its format is {written_as!r}, not {FORMAT!r}: it stands beside the wrong kind of file"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)) or (0,)


def _again(library: Library) -> str:
    """Say how an engine for this machine is made."""
    # What TensorRT-RTX compiles for by itself may again leave out the GPU that is here.
    fmt = "trt-rtx --capability current" if library == "tensorrt_rtx" else "trt"
    return (
        f"Build it on this machine: edgeml export MODEL.onnx --fmt {fmt}, "
        f'or Predictor("MODEL.onnx", runtime="{library}").'
    )


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU and the driver that serves it.

    Attributes:
        name: As the driver calls it, for example `NVIDIA H100 80GB HBM3`.
        compute_capability: `9.0`.
        driver: `580.65.06`; where Linux does not tell, `CUDA 13.0`.
        cuda: The newest CUDA that the driver serves: `13.0`.
    """

    name: str
    compute_capability: str
    driver: str
    cuda: str
