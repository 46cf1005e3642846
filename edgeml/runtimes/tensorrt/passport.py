"""The passport next to a TensorRT engine: which machine the engine is for, and what it means.

An engine is native code for one GPU and one TensorRT. So before any library reads it, edgeml checks
that its bytes are those that were built, and that they were built for this machine. The engine
file itself is a pure plan, which `trtexec` reads.
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

from edgeml.errors import EngineMismatchError, EngineReason, ModelLoadError, SpecError
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
        dtype: As numpy calls it: `float32`, `uint8`.
        shape: None for a size that is chosen at each run.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Passport:
    """Where an engine comes from, and where it runs.

    Attributes:
        library: Which of NVIDIA's two libraries built it; the other cannot read it.
        version: The full version of that library: `10.3.0`, `11.4.0.106`.
        cuda: The CUDA that the library was built for; None if unknown.
        driver: The driver of the machine that built it; None without one.
        gpu: The GPU that it was built on; None if it was built without one.
        compute_capability: Of that GPU, or of all GPUs that it was compiled for: `8.6`.
        portable: Where else it runs. `exact`: on the same model of GPU only. `same-capability`: on
            GPUs of the capabilities listed. `ampere+`: on 8.0 and newer. `version`: also with newer
            TensorRTs, which run host code that the engine carries.
        profile: The smallest, the usual and the largest batch.
        inputs: One, if edgeml wrote it.
        outputs: One, if edgeml wrote it.
        plan_sha256: Digest of the engine.
        plan_bytes: Size of the engine.
        onnx_sha256: Digest of the file that it was built from.
        precision: The precision that the ONNX was exported in.
        layers: The number of fused layers by the type that they compute in; empty if unknown.
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
        fields = {"format": FORMAT, **asdict(self), "spec": json.loads(self.spec.to_json())}
        return json.dumps(fields, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Passport:
        """Read what `to_json` wrote.

        Raises:
            SpecError: It is not JSON, has another format, or a field is missing or wrong.
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
        del data["spec"]["format"]  # checked above, and not a field
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as err:
            raise SpecError(f"its {first_fault(err, 'passport')}") from err


def passport_path(engine: Path) -> Path:
    """Return the path of an engine's passport: `model.engine.json` for `model.engine`."""
    return sidecar_path(engine)


def write_passport(passport: Passport, engine: Path) -> None:
    """Write a passport next to an engine, as one step."""
    write_text(passport_path(engine), passport.to_json())


def read_passport(engine: Path) -> Passport:
    """Read the passport next to an engine.

    Raises:
        EngineMismatchError: There is none, or it cannot be understood.
    """
    path = passport_path(engine)
    cause: Exception
    try:
        return Passport.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise EngineMismatchError(
            f"{engine.name} has no passport: {path.name} is not next to it. An engine is native "
            "code, so it is loaded only if a passport states what it is and for which GPU. "
            "Copy the passport too, or build the engine with edgeml export.",
            reason="no-passport",
        ) from err
    except UnicodeDecodeError as err:
        message, cause = "is not UTF-8 text. Copy it again, together with its engine", err
    except OSError as err:
        message, cause = f"cannot be read: {err.strerror}", err
    except SpecError as err:
        message, cause = f"cannot be used: {str(err).rstrip('.')}", err
    raise EngineMismatchError(f"The passport {path.name} {message}.", reason="passport") from cause


def read_engine(engine: Path) -> tuple[Passport, bytes]:
    """Read an engine whose bytes are those that its passport states.

    The returned bytes are the ones that were hashed, so nobody can replace the file in between.

    Raises:
        ModelLoadError: The engine cannot be read.
        EngineMismatchError: The passport is missing, wrong or another engine's, or the engine was
            changed.
    """
    passport = read_passport(engine)
    try:
        plan = engine.read_bytes()
    except OSError as err:
        raise ModelLoadError(f"{engine.name} cannot be read: {err.strerror}.") from err
    digest = hashlib.sha256(plan).hexdigest()
    if digest == passport.plan_sha256:
        return passport, plan
    raise _byte_mismatch(engine, passport, len(plan), digest)


def describe_engine(engine: Path) -> dict[str, Any]:
    """Return the contents of the passport as JSON values, without TensorRT.

    Raises:
        ModelLoadError: The engine cannot be read.
        EngineMismatchError: It has no passport, or is not the engine that its passport describes.
    """
    passport, plan = read_engine(engine)
    fields = json.loads(passport.to_json())
    spec = fields.pop("spec")
    # The precision and the format are the spec's, with the same keys as for other models.
    hidden = ("format", "library", "version", "plan_sha256", "plan_bytes")
    return {
        "path": str(engine),
        "bytes": len(plan),
        "sha256": passport.plan_sha256,
        "fits_passport": True,
        "runtime": f"{passport.library} {passport.version}",
        **{key: fields[key] for key in fields if key not in hidden},
        **spec,
    }


def supersedes(new: Passport, old: Passport) -> bool:
    """Return whether an engine is built from the same file for the same GPU, by newer versions."""
    sources = [(p.onnx_sha256, p.library, p.gpu, p.compute_capability) for p in (old, new)]
    versions = [(_numbers(p.version), _numbers(p.driver or "")) for p in (old, new)]
    older = all(before <= after for before, after in zip(*versions, strict=True))
    return sources[0] == sources[1] and older and versions[0] != versions[1]


def check(passport: Passport, *, library: Library, version: str, gpu: Gpu) -> None:
    """Refuse an engine that was built for another GPU or library than those of this machine.

    Raises:
        EngineMismatchError: Names what it was built for, and what is here.
    """
    check_library(passport, library)
    mismatches: list[tuple[EngineReason, str | None]] = [
        ("version", _version_mismatch(passport, NAMES[library], version)),
        ("driver", _driver_mismatch(passport, gpu)),
        ("gpu", _gpu_mismatch(passport, gpu)),
    ]
    for reason, message in mismatches:
        if message:
            raise EngineMismatchError(f"{message} {_build_here(library)}", reason=reason)


def check_library(passport: Passport, library: Library) -> None:
    """Refuse an engine of the other library, whether or not that one is installed.

    Raises:
        EngineMismatchError: Names both.
    """
    if library != passport.library:
        raise EngineMismatchError(
            f"This engine was built by {NAMES[passport.library]}, and {NAMES[library]} cannot run "
            f"it. {_build_here(library)}",
            reason="library",
        )


def _driver_mismatch(passport: Passport, gpu: Gpu) -> str | None:
    if not passport.cuda or not gpu.cuda or _numbers(passport.cuda)[0] <= _numbers(gpu.cuda)[0]:
        return None
    return (
        f"This engine needs a driver for CUDA {passport.cuda}; the driver here, {gpu.driver}, "
        f"supports CUDA up to {gpu.cuda}. Update the driver."
    )


def _version_mismatch(passport: Passport, name: str, version: str) -> str | None:
    """Compare versions by NVIDIA's rules, see the support matrix of TensorRT 11.4.

    Version-compatible plans run on later releases of their major version, and those of 10 on 11.
    """
    if passport.version == version:
        return None
    built, here = _numbers(passport.version), _numbers(version)
    if passport.portable != "version":
        which = "an older" if built < here else "a newer"
        return (
            f"This engine was built by {which} {name}, {passport.version}; this machine has "
            f"{version}, and an engine runs on its own version only."
        )
    if built > here:
        return (
            f"This version-compatible engine was built by {name} {passport.version}; it runs on "
            f"that and later ones, and this machine has {version}."
        )
    if built[0] != here[0] and (built[0], here[0]) != (10, 11):
        return (
            f"This version-compatible engine was built by {name} {passport.version}; this "
            f"machine has {version}, and only engines of 10 run on the next major version."
        )
    return None


def _gpu_mismatch(passport: Passport, gpu: Gpu) -> str | None:
    here = f"{gpu.name} (compute capability {gpu.compute_capability})"
    listed = " or ".join(passport.compute_capability)
    if passport.portable == "ampere+":
        message = "This engine is for GPUs of compute capability 8.0 (Ampere) and newer"
        older = _numbers(gpu.compute_capability) < (8, 0)
        return f"{message}; this machine has {here}." if older else None
    if gpu.compute_capability not in passport.compute_capability:
        on = f"on {passport.gpu}, " if passport.gpu else ""
        return f"This engine was built {on}for compute capability {listed}; here is {here}."
    if passport.portable != "same-capability" and passport.gpu not in (None, gpu.name):
        return (
            f"This engine was built on {passport.gpu}; here is {here}, with the same compute "
            "capability, but the kernels were chosen for the other model."
        )
    return None


def _byte_mismatch(engine: Path, passport: Passport, size: int, digest: str) -> EngineMismatchError:
    """Return the error of an engine that was damaged, or that has the passport of another one."""
    mine = passport_path(engine).name
    if size == 0:
        return EngineMismatchError(
            f"{engine.name} is empty; its passport states {passport.plan_bytes:,} bytes.",
            reason="empty",
        )
    for other in sorted(engine.parent.glob("*.engine.json")):
        with suppress(EngineMismatchError):
            neighbour = other.with_name(other.name.removesuffix(".json"))
            if other.name != mine and read_passport(neighbour).plan_sha256 == digest:
                return EngineMismatchError(
                    f"The passport {mine} belongs to another engine; {other.name} is the one of "
                    f"{engine.name}. Rename them so that each engine has its own.",
                    reason="other-passport",
                )
    if size < passport.plan_bytes:
        return EngineMismatchError(
            f"{engine.name} is cut short: it has {size:,} of the {passport.plan_bytes:,} bytes "
            "that its passport states. Copy it again.",
            reason="truncated",
        )
    if size > passport.plan_bytes:
        return EngineMismatchError(
            f"{engine.name} has {size:,} bytes, more than the {passport.plan_bytes:,} that its "
            f"passport states: {mine} is another engine's, or something was appended. "
            "Copy both again.",
            reason="longer",
        )
    return EngineMismatchError(
        f"{engine.name} was changed: its sha256 is {digest[:12]}…, its passport states "
        f"{passport.plan_sha256[:12]}…. Copy both again, or build the engine again.",
        reason="changed",
    )


def _other_format(written_as: Any) -> str:
    if isinstance(written_as, str) and written_as.startswith("edgeml.engine/"):
        return f"it is of format {written_as!r}, newer than {FORMAT!r}: update edgeml"
    if written_as is None:
        return f"it does not state the format {FORMAT!r}, so it is not the passport of an engine"
    return f"its format is {written_as!r}, not {FORMAT!r}: it is next to the wrong kind of file"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)) or (0,)


def _build_here(library: Library) -> str:
    """Return the sentence that says how to build an engine for this machine."""
    # TensorRT-RTX's usual list of GPUs may not contain the one of this machine.
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
        driver: `580.65.06`; if Linux does not report it, `CUDA 13.0`.
        cuda: The newest CUDA that the driver supports: `13.0`.
    """

    name: str
    compute_capability: str
    driver: str
    cuda: str
