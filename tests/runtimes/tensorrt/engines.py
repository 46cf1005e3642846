"""Engines of the stand-in, built as TensorRT would, with their passports."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from edgeml.files import sha256_of_file
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.passport import Library, Passport, Tensor, write_passport
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import METADATA_KEY
from tests.runtimes.tensorrt.cuda_standin import CudaStandin
from tests.runtimes.tensorrt.standin import standin, state_of

VERSIONS = ("10.3", "10.16", "11.4", "rtx")


class Machine:
    """A machine with a stand-in GPU and one stand-in TensorRT."""

    def __init__(self, version: str, cuda: CudaStandin) -> None:
        self.cuda = cuda
        self.trt: ModuleType = standin(version, cuda=cuda)
        self.library: Library = "tensorrt_rtx" if version == "rtx" else "tensorrt"

    @property
    def state(self) -> Any:
        return state_of(self.trt)

    def build(self, source: Path, engine: Path, *, most: int = 8, **changes: Any) -> Path:
        """Build an engine of an .onnx; `changes` replace fields of its passport."""
        from edgeml.runtimes.tensorrt.cuda import this_gpu

        gpu = this_gpu()
        plan, inputs, outputs = self.plan(source, most)
        engine.write_bytes(plan)
        props = {p.key: p.value for p in onnx.load(source).metadata_props}
        spec = ModelSpec.from_json(props[METADATA_KEY])
        fields: dict[str, Any] = {
            "library": self.library,
            "version": self.state.version,
            "cuda": "13",
            "driver": gpu.driver,
            "gpu": gpu.name,
            "compute_capability": (gpu.compute_capability,),
            "portable": "exact",
            "profile": (1, 1, most),
            "inputs": inputs,
            "outputs": outputs,
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "plan_bytes": len(plan),
            "onnx_sha256": sha256_of_file(source),
            "precision": spec.precision,
            "spec": spec,
        }
        write_passport(Passport(**{**fields, **changes}), engine)
        return engine

    def plan(self, source: Path, most: int) -> tuple[bytes, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Build with TensorRT's own calls, as edgeml_export does."""
        trt: Any = self.trt
        logger = bindings.logger(trt)
        builder = trt.Builder(logger)
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = trt.OnnxParser(network, logger)
        assert parser.parse_from_file(str(source))
        config = builder.create_builder_config()
        given, answer = network.get_input(0), network.get_output(0)
        if given.shape[0] < 0:
            profile = builder.create_optimization_profile()
            rest = tuple(given.shape)[1:]
            profile.set_shape(given.name, (1, *rest), (1, *rest), (most, *rest))
            assert config.add_optimization_profile(profile) == 0
        plan = bytes(builder.build_serialized_network(network, config))
        return plan, (_tensor(given),), (_tensor(answer),)


def _tensor(tensor: Any) -> Tensor:
    dtype = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}[tensor.dtype.name]
    shape = tuple(None if side < 0 else side for side in tensor.shape)
    return Tensor(name=tensor.name, dtype=dtype, shape=shape)


@contextmanager
def machine(version: str = "11.4", **gpu: Any) -> Iterator[Machine]:
    """Replace this machine by one with stand-ins; `gpu` are arguments of `CudaStandin`."""
    made = Machine(version, CudaStandin(**gpu))

    def load(library: Library, *, to: str = "") -> ModuleType:
        assert library == made.library, f"{library} is not installed on this machine"
        return made.trt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "bindings", lambda: made.cuda)
        patch.setattr(bindings, "load", load)
        yield made
