"""The step that builds an engine, and the description of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeml.files import user_cache
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.tensorrt.build import Built, engine_from_onnx
from edgeml.runtimes.tensorrt.engine_layers import products_of
from edgeml.runtimes.tensorrt.passport import NAMES
from edgeml.runtimes.tensorrt.runtime import incompatibility
from edgeml_export.job import Job


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """An engine that was built.

    Attributes:
        built: The engine.
        products: The number of its convolutions and matrix products by operator and type, see
            `products_of`.
        checked_by: What is compared with the source: the `engine`, or, without a GPU that runs
            it, its `onnx`, rounded as a GPU rounds.
    """

    built: Built
    products: Mapping[str, Mapping[str, int]]
    checked_by: Literal["engine", "onnx"]

    def sentence(self) -> str:
        """Return a line that names the library, the GPU, the batch sizes and the types."""
        counts = (
            f"{count} of {sum(types.values())} {kind} in {name}"
            for kind, types in self.products.items()
            for name, count in types.items()
        )
        passport = self.built.passport
        gpu = passport.gpu or f"compute capability {', '.join(passport.compute_capability)}"
        smallest, _, largest = passport.profile
        batches = f"batches of {smallest}" + (f" to {largest}" if largest > smallest else "")
        return (
            f"{NAMES[passport.library]} {passport.version} built for {gpu}, {batches}: "
            f"{', '.join(counts) or 'no layers'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the value of `engine` in `edgeml export --json`."""
        passport = self.built.passport
        return {
            "library": passport.library,
            "version": passport.version,
            "gpu": passport.gpu,
            "compute_capability": list(passport.compute_capability),
            "portable": passport.portable,
            "profile": list(passport.profile),
            "bytes": passport.plan_bytes,
            "types": dict(passport.layers),
            "products": {kind: dict(types) for kind, types in self.products.items()},
            "layers": [layer.to_dict() for layer in self.built.layers],
            "warnings": list(self.built.warnings),
            "checked_by": self.checked_by,
        }


def build_engine(job: Job, source: Path, target: Path) -> EngineReport:
    """Build an engine from ONNX, with the timings that earlier builds on this machine measured.

    Raises:
        ExportError: TensorRT would misread the file, cannot read it, or cannot build it.
    """
    library = job.request.library
    assert library is not None
    built = engine_from_onnx(
        source,
        target,
        job.request.engine,
        library=library,
        timing_cache=user_cache("engines", extra="export") / f"{library}.timing",
        progress=job.progress,
    )
    report = EngineReport(
        built=built,
        products=products_of(built.layers, read_onnx(source)),
        checked_by="engine" if incompatibility(built.passport) is None else "onnx",
    )
    job.progress.note(report.sentence())
    return report
