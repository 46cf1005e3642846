"""An FP32 and an INT8 engine of a real network on real photos, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml import ModelSpec, Predictor, Preprocess
from edgeml.files import sha256_of_file
from edgeml.spec.decide import decide, probabilities

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
pytest.importorskip("torch", reason="torch is not installed")
from tests.runtimes.tensorrt.engines import machine

pytestmark = [pytest.mark.runtime, pytest.mark.train, pytest.mark.nightly]

SIDE = 64
PHOTOS = 200


@pytest.fixture(scope="module")
def photos(clothing: Path) -> list[Path]:
    found = sorted((clothing / "images").iterdir())
    return found[:: len(found) // (PHOTOS + 16)]


@pytest.fixture(scope="module")
def fp32(mobilenet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 with the weights of ImageNet, 1000 labels of which each is decided."""
    import timm
    from safetensors.torch import load_file

    from edgeml_export.to_onnx import onnx_from_module

    module = timm.create_model("mobilenetv2_100", pad_type="same").eval()
    module.load_state_dict(load_file(mobilenet_weights))
    labels = tuple(f"class {number}" for number in range(1000))
    # A threshold where many scores lie, so that a small error flips some of 200,000 decisions.
    spec = ModelSpec(
        labels=labels, thresholds=(0.5,) * 1000, preprocess=Preprocess(size=(SIDE, SIDE))
    )
    return onnx_from_module(module, spec, tmp_path_factory.mktemp("net") / "m.onnx")


@pytest.fixture(scope="module")
def int8(fp32: Path, photos: list[Path]) -> Path:
    from edgeml_export.int8.calibration import Calibration
    from edgeml_export.int8.ranges import measure_ranges
    from edgeml_export.int8.to_int8 import int8_from_onnx

    kept = photos[PHOTOS : PHOTOS + 16]
    hashes = tuple(sha256_of_file(path) for path in kept)
    ranges = measure_ranges(fp32, Calibration(paths=tuple(kept), hashes=hashes))
    return int8_from_onnx(fp32, fp32.with_name("m.int8.onnx"), ranges, layout="tensorrt")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_no_label_of_200_photos_flips(
    precision: str, photos: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(precision)
    with machine("11.4") as made:
        engine = made.build(source, tmp_path / "m.engine")
        with Predictor(source) as reference, Predictor(engine) as ours:
            frames = [reference.read(path) for path in photos[:PHOTOS]]
            batch = reference.prepare(frames)
            # As batches come: one, some, the greatest, and more than that.
            cuts = np.cumsum([1, 3, 8, 1, 3, 8, 20, 50])
            expected = np.concatenate(
                [reference.runtime.run(part) for part in np.split(batch, cuts)]
            )
            logits = np.concatenate([ours.runtime.run(part) for part in np.split(batch, cuts)])
            spec = reference.spec
        before, after = (decide(probabilities(each, spec), spec) for each in (expected, logits))
        assert len(before) == PHOTOS
        assert 0.05 < before.mean() < 0.95
        assert np.count_nonzero(before != after) == 0
