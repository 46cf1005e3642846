"""What is told of an engine that was built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgeml.runtimes.tensorrt.passport import NAMES

if TYPE_CHECKING:
    from edgeml.runtimes.tensorrt.build import Built


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What an export says of its engine.

    Attributes:
        built: The engine.
        products: Its convolutions and products by operator and type, see `products_of`.
        checked_by: What was compared with the source: `engine`, or its `onnx`, rounded as a GPU
            rounds, where no GPU is that runs the engine.
    """

    built: Built
    products: Mapping[str, Mapping[str, int]]
    checked_by: Literal["engine", "onnx"] | None = None

    def sentence(self) -> str:
        """Say in a line what computes in what."""
        counted = (
            f"{count} of {sum(types.values())} {kind} in {name}"
            for kind, types in self.products.items()
            for name, count in types.items()
        )
        passport = self.built.passport
        on = passport.gpu or f"compute capability {', '.join(passport.compute_capability)}"
        least, _, most = passport.profile
        batches = f"batches of {least}" + (f" to {most}" if most > least else "")
        return (
            f"{NAMES[passport.library]} {passport.version} built for {on}, {batches}: "
            f"{', '.join(counted) or 'no layers'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml export --json` prints of it."""
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
