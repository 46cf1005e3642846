"""Models that the tools themselves exported, on real photos, against the tools' own scores.

`sh tests/spec/foreign/make.sh` makes them under build/foreign; timm and torchvision are
installed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml import Predictor
from edgeml.image.reading import read_image
from edgeml.spec.foreign.merge import SpecOverrides, spec_for
from tests.conftest import ROOT
from tests.spec.foreign.drawn import drawn

EXPORTED = ROOT / "build" / "foreign"

CASES = [
    "made_hf/vit", "made_hf/vit_several", "made_hf/convnext", "made_hf/siglip", "made_hf/deit",
    "made_hf/mobilenet", "made_hf/vit_openvino", "made_hf/convnext_openvino",
    "made_hf/timm_wrapper", "made_hf/timm_wrapper_several", "made_hf/dinov3",
    "made_ul/onnx", "made_ul/cls_openvino_model", "made_ul/oblong",
    "made_ma/standard", "made_ma/crop", "made_ma/letterbox", "made_ma/several", "made_ma/embedded",
    "made_timm/mobilenet",
]  # fmt: skip


@pytest.mark.runtime
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_tool(case: str, clothing: Path) -> None:
    folder = EXPORTED / case
    if not (folder / "expected.json").exists():
        pytest.skip(f"{case} does not exist: sh tests/spec/foreign/make.sh")
    recorded = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    agreed, decided, apart = 0, 0, []
    with Predictor(folder / recorded["model"] if "model" in recorded else folder) as predictor:
        for photo, expected in zip(recorded["photos"], recorded["expected"], strict=True):
            prediction = predictor.predict(clothing / "images" / photo)
            scores = dict(zip(predictor.spec.labels, prediction.scores, strict=True))
            assert scores.keys() == expected.keys()
            apart.append(max(abs(scores[name] - value) for name, value in expected.items()))
            decided += sorted(prediction.labels) == recorded.get("top", [[]] * 50)[len(apart) - 1]
            agreed += prediction.top(1)[0][0] == max(expected, key=expected.__getitem__)
    assert len(apart) == 50
    # See README for the figures of each.
    assert agreed == 50
    assert max(apart) <= 0.02
    if "top" in recorded:  # the decisions of model_api itself, by its threshold
        assert decided >= 49


@pytest.mark.train
@pytest.mark.parametrize(
    "name",
    [
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "EfficientNet_B3_Weights.IMAGENET1K_V1",
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1",
        "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
    ],
)
def test_torchvisions_presets_give_its_inputs(tmp_path: Path, clothing: Path, name: str) -> None:
    pytest.importorskip("torchvision")
    from PIL import Image
    from torchvision.models import get_weight

    from tests.spec.foreign.nets import make_net

    weights = get_weight(name)
    transform: Any = weights.transforms()
    path = make_net(tmp_path / "m.onnx", sides=("H", "W"))
    stated = spec_for(path, SpecOverrides(like=weights))
    assert len(stated.spec.labels) == 1000
    photos: Sequence[Path] = sorted((clothing / "images").glob("*.jpg"))[::160]
    for photo in photos:
        ours = stated.spec.preprocess([read_image(photo)])[0]
        theirs = transform(Image.open(photo).convert("RGB")).numpy()
        levels = np.abs(ours - theirs) * 255 * np.array(transform.std)[:, None, None]
        assert levels.mean() < 0.5
        assert levels.max() < 6


@pytest.mark.train
@pytest.mark.runtime
def test_a_network_that_timm_and_torch_export_runs_from_its_folder(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    from timm.data import create_transform, resolve_data_config
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model("mobilenetv4_conv_small_050", num_classes=7).eval()
    with torch.no_grad():
        network.classifier.weight *= 100
    names = [f"n{i}" for i in range(7)]
    save_for_hf(network, tmp_path, model_config={"label_names": names})
    from timm.utils.onnx import onnx_export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends another exporter
        onnx_export(
            network, str(tmp_path / "model.onnx"), opset=18, input_size=(3, 224, 224),
            batch_size=1, use_dynamo=False,
        )  # fmt: skip
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    transform = create_transform(**resolve_data_config(config["pretrained_cfg"]))
    from PIL import Image

    with torch.no_grad():
        expected = network(transform(Image.fromarray(drawn(480, 360)))[None]).softmax(dim=1)[0]
    frame = cv2.cvtColor(drawn(480, 360), cv2.COLOR_RGB2BGR)
    scores = Predictor(tmp_path).predict(frame).scores
    np.testing.assert_allclose(scores, expected.numpy(), atol=0.01)
    assert expected.max() > 0.2
