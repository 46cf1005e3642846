"""Initial weights: which ones fit, which do not, and the preprocessing that they imply."""

from __future__ import annotations

import json
import pickle
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeml import ModelSpec, Preprocess
from edgeml.errors import ModelLoadError, SpecError
from edgeml.network import weights as weights_module
from edgeml.network.checkpoint import save_checkpoint
from edgeml.network.heads import head_layers
from edgeml.network.model import build_model
from edgeml.network.weights import (
    load_weights,
    padding_note,
    preprocess_of,
    published_weights,
    read_weights,
)
from edgeml.spec.provenance import Provenance

pytestmark = pytest.mark.train

LABELS = ("a", "b", "c")


def saved(path: Path, model: torch.nn.Module, metadata: dict[str, str] | None = None) -> Path:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def test_a_backbone_is_loaded_without_a_head_of_another_width(file: Path) -> None:
    source = build_model("test_resnet", labels=10, args={})
    saved(file, source)
    model = build_model("test_resnet", labels=3, args={})
    head = model.get_classifier().weight.clone()
    assert not load_weights(model, read_weights(file), LABELS)
    assert torch.equal(model.conv1[0].weight, source.conv1[0].weight)
    assert torch.equal(model.get_classifier().weight, head)


def test_a_head_of_the_same_labels_is_loaded(file: Path) -> None:
    source = build_model("cnn", labels=3, args={})
    spec = ModelSpec(labels=LABELS, thresholds=(0.5,) * 3, preprocess=Preprocess(size=(32, 32)))
    saved(file, source, {"edgeml": spec.to_json()})
    model = build_model("cnn", labels=3, args={})
    assert load_weights(model, read_weights(file), LABELS)
    assert torch.equal(model.head.weight, source.head.weight)


def test_a_head_of_other_labels_is_not_loaded(file: Path) -> None:
    spec = ModelSpec(labels=LABELS, thresholds=(0.5,) * 3, preprocess=Preprocess(size=(32, 32)))
    saved(file, build_model("cnn", labels=3, args={}), {"edgeml": spec.to_json()})
    model = build_model("cnn", labels=3, args={})
    assert not load_weights(model, read_weights(file), ("a", "b", "x"))


def test_weights_of_another_model_are_refused_with_a_few_of_the_keys(file: Path) -> None:
    saved(file, build_model("test_vit", labels=3, args={}))
    with pytest.raises(ModelLoadError, match=r"missing \(conv1.*unknown \(blocks\.0"):
        load_weights(build_model("test_resnet", labels=3, args={}), read_weights(file), LABELS)


def test_weights_of_another_shape_are_refused(file: Path) -> None:
    model = build_model("cnn", labels=3, args={})
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    tensors["features.0.weight"] = torch.zeros(8, 3, 3, 3)
    save_file(tensors, file)
    with pytest.raises(ModelLoadError, match=r"1 of another shape .*\(8, 3, 3, 3\) for \(\d+, 3"):
        load_weights(model, read_weights(file), LABELS)


def test_a_pickle_is_refused_without_opening_it(tmp_path: Path) -> None:
    for name in ("weights.pth", "disguised.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps({"conv1.weight": 1}))
        with pytest.raises(ModelLoadError, match="safetensors"):
            read_weights(tmp_path / name)


def test_a_truncated_file_is_refused(file: Path) -> None:
    saved(file, build_model("cnn", labels=3, args={}))
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ModelLoadError, match="cannot be read"):
        read_weights(file)


def test_missing_weights_are_named() -> None:
    with pytest.raises(ModelLoadError, match="nowhere"):
        read_weights(Path("nowhere.safetensors"))


def test_the_preprocessing_comes_from_timm_unless_the_file_states_it(file: Path) -> None:
    model = build_model("mobilenetv2_100", labels=3, args={})
    timms = preprocess_of(model, None, 160)
    assert timms == Preprocess(size=(160, 160), interpolation="cubic")  # ImageNet's mean and std
    metadata = {"mean": "0.5,0.5,0.5", "std": "0.25,0.5,0.5", "interpolation": "bilinear"}
    files = preprocess_of(model, read_weights(saved(file, model, metadata)), None)
    assert files == Preprocess(
        size=(224, 224), interpolation="linear", mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5)
    )


def test_the_preprocessing_of_a_checkpoint_is_used(file: Path) -> None:
    preprocess = Preprocess(size=(48, 48), resize="letterbox", mean=(0.1, 0.2, 0.3))
    spec = ModelSpec(labels=LABELS, thresholds=(0.5,) * 3, preprocess=preprocess)
    model = build_model("cnn", labels=3, args={})
    weights = read_weights(saved(file, model, {"edgeml": spec.to_json()}))
    assert preprocess_of(model, weights, None) == preprocess
    assert preprocess_of(model, weights, 64) == replace(preprocess, size=(64, 64))


def test_a_mean_that_is_not_three_numbers_is_refused(file: Path) -> None:
    for wrong in ("0.5", "a,b,c"):
        saved(file, build_model("cnn", labels=3, args={}), {"mean": wrong})
        with pytest.raises(SpecError, match=r"'mean' of 'weights\.safetensors'"):
            read_weights(file)


def test_the_real_weights_imply_their_preprocessing(mobilenet_weights: Path) -> None:
    model = build_model("mobilenetv2_100", labels=21, args={"pad_type": "same"})
    weights = read_weights(mobilenet_weights)
    assert weights.card.args == {"pad_type": "same"}
    assert weights.card.licence == "Apache-2.0"
    assert padding_note("mobilenetv2_100", weights, {}) is None
    assert not load_weights(model, weights, [str(i) for i in range(21)])
    preprocess = preprocess_of(model, weights, 160)
    # As stated in the README next to the file.
    assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert preprocess.interpolation == "cubic"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub, laid out as the hub's own library does."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_published_weights_come_from_the_cache(hub_cache: Path) -> None:
    repository = hub_cache / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    source = build_model("test_resnet", labels=1000, args={})
    saved(snapshot / "model.safetensors", source)
    weights = published_weights("test_resnet")
    model = build_model("test_resnet", labels=3, args={}, tensors=weights.tensors)
    assert torch.equal(model.conv1[0].weight, source.conv1[0].weight)
    assert len(model.get_classifier().bias) == 3


def test_without_a_network_published_weights_fail_at_once(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(ModelLoadError, match=r"not known.*--weights FILE.*--from-scratch"):
        published_weights("test_resnet")


def test_a_hub_that_does_not_answer_times_out_soon(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(weights_module, "_HUB_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_hub = huggingface_hub.HfApi(f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: silent_hub)
        started = time.monotonic()
        with pytest.raises(ModelLoadError, match=r"test_resnet.*--weights FILE.*--from-scratch"):
            published_weights("test_resnet")
        assert time.monotonic() - started < 5


def test_published_weights_have_the_card_of_timm(hub_cache: Path) -> None:
    repository = hub_cache / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    source = build_model("vit_tiny_patch16_224", labels=1000, args={})
    saved(snapshot / "model.safetensors", source, {"format": "pt"})
    weights = published_weights("vit_tiny_patch16_224")
    assert weights.card.licence == "apache-2.0"
    model = build_model(
        "vit_tiny_patch16_224", labels=3, args={}, head="csra", tensors=weights.tensors
    )
    assert torch.equal(model.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert preprocess_of(model, weights, None) == Preprocess(
        size=(224, 224), interpolation="cubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )


def test_our_cnn_has_no_published_weights() -> None:
    with pytest.raises(ModelLoadError, match="--from-scratch"):
        published_weights("cnn")


def test_no_file_of_the_package_unpickles_more_than_tensors() -> None:
    for source in Path(weights_module.__file__).parent.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert text.count("torch.load(") == text.count("weights_only=True")


def test_a_folder_in_timms_layout_is_read(tmp_path: Path) -> None:
    model = build_model("mobilenetv2_035", labels=3, args={"pad_type": "same"})
    saved(tmp_path / "model.safetensors", model)
    config = {
        "architecture": "mobilenetv2_035",
        "model_args": {"pad_type": "same"},
        "pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [3, 96, 96]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = read_weights(tmp_path)
    assert weights.card.args == {"pad_type": "same"}
    assert preprocess_of(model, weights, None) == Preprocess(
        size=(96, 96), interpolation="cubic", mean=(0, 0, 0), std=(1, 1, 1)
    )
    assert preprocess_of(model, weights, 64).size == (64, 64)


def test_the_card_of_a_run_comes_from_its_checkpoint(tmp_path: Path) -> None:
    args = {"pad_type": "same", "drop_rate": 0.1}
    model = build_model("mobilenetv2_035", labels=3, args=args)
    spec = ModelSpec(
        labels=LABELS,
        thresholds=(0.5,) * 3,
        preprocess=Preprocess(size=(48, 64)),
        provenance=Provenance(weights_license="cc-by-nc-4.0"),
    )
    save_checkpoint(tmp_path / "model.safetensors", model, spec, name="mobilenetv2_035", args=args)
    (tmp_path / "config.json").write_text("not JSON")
    card = read_weights(tmp_path).card
    assert (card.architecture, card.args) == ("mobilenetv2_035", args)
    assert (card.size, card.licence) == ((48, 64), "cc-by-nc-4.0")


def test_weights_with_another_padding_are_refused_although_they_fit(file: Path) -> None:
    source = build_model("tf_mobilenetv3_small_minimal_100", labels=3, args={})
    model = build_model("mobilenetv3_small_100", labels=3, args={})
    saved(file, model, {"architecture": "tf_mobilenetv3_small_100.in1k"})
    with pytest.raises(ModelLoadError, match="Use --model tf_mobilenetv3_small_100"):
        load_weights(model, read_weights(file), LABELS)
    saved(file, source, {"architecture": "my_own_net"})  # timm does not know it: the keys decide
    with pytest.raises(ModelLoadError, match="do not fit"):
        load_weights(model, read_weights(file), LABELS)


def test_weights_that_do_not_state_their_padding_cause_a_note(file: Path) -> None:
    weights = read_weights(saved(file, build_model("mobilenetv2_035", labels=3, args={})))
    note = padding_note("mobilenetv2_035", weights, {})
    assert note is not None
    assert "'weights.safetensors' does not state the padding of its network" in note
    assert padding_note("mobilenetv2_035", weights, {"pad_type": "same"}) is None
    for indifferent in ("cnn", "resnet18", "vit_tiny_patch16_224"):
        assert padding_note(indifferent, weights, {}) is None


@pytest.mark.parametrize("name", ["cnn", "test_resnet", "test_vit"])
def test_a_model_with_an_attention_head_loads_the_backbone_of_a_linear_one(
    file: Path, name: str
) -> None:
    source = build_model(name, labels=3, args={})
    model = build_model(name, labels=3, args={}, head="csra")
    head = {key: value.clone() for key, value in model.state_dict().items()}
    assert not load_weights(model, read_weights(saved(file, source)), LABELS)
    theirs = source.state_dict()
    same = {key for key, value in model.state_dict().items() if torch.equal(value, theirs[key])}
    (layer,) = head_layers(model)
    assert set(head) - same <= {f"{layer}.weight", f"{layer}.bias"}
    assert torch.equal(model.state_dict()[f"{layer}.weight"], head[f"{layer}.weight"])


@pytest.mark.parametrize("size", [96, 224])
def test_a_transformer_may_have_another_input_size_than_its_weights(file: Path, size: int) -> None:
    source = build_model("test_vit", labels=3, args={})
    saved(file, source)
    args = {"img_size": size}
    model = build_model("test_vit", labels=3, args=args)
    timms = build_model("test_vit", labels=3, args=args, tensors=source.state_dict())
    assert load_weights(model, read_weights(file), LABELS)
    assert model.pos_embed.shape == (1, 1 + (size // 16) ** 2, 64)
    for key, value in timms.state_dict().items():
        if not key.startswith("head"):  # timm always creates a new one
            assert torch.equal(model.state_dict()[key], value), key


def test_positions_of_another_width_are_refused(file: Path) -> None:
    model = build_model("test_vit", labels=3, args={})
    save_file({**model.state_dict(), "pos_embed": torch.zeros(1, 37, 32)}, file)
    with pytest.raises(ModelLoadError, match=r"pos_embed \(1, 37, 32\) for \(1, 101, 64\)"):
        load_weights(model, read_weights(file), LABELS)


@pytest.mark.nightly
def test_an_attention_pool_in_the_file_is_ignored(file: Path) -> None:
    source = build_model("vit_base_patch16_siglip_224", labels=3, args={})
    saved(file, source)
    model = build_model("vit_base_patch16_siglip_224", labels=3, args={}, head="csra")
    assert not load_weights(model, read_weights(file), LABELS)
    assert torch.equal(model.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
