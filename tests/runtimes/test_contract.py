"""What every runtime promises, those of edgeml and any other object with the five members."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import InferenceError, InputError, ModelLoadError, SpecError
from edgeml.runtimes import Runtime, RuntimeOptions, open_runtime
from tests.runtimes.nets import assert_same_in_threads, noise
from tests.tiny import TinyRuntime, make_tiny_onnx, tiny_spec, tiny_weights

RUNTIMES = ("onnxruntime", "openvino", "torch", "tensorrt", "object")
FILES = ("onnxruntime", "openvino")

Opens = Callable[[], Runtime]


def torch_runtime() -> Runtime:
    """Return the tiny model as a PyTorch module, without a checkpoint."""
    torch = pytest.importorskip("torch")
    from edgeml.runtimes.torch_ import TorchRuntime

    head = torch.nn.Linear(3, 3, bias=False)
    head.weight.data = torch.from_numpy(tiny_weights(3))
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    runtime = object.__new__(TorchRuntime)
    runtime.__dict__.update(
        _module=pooled.eval(),
        _device="cpu",
        _process=os.getpid(),
        name=f"torch {torch.__version__} CPU",
        input_shape=(None, 3, 32, 32),
        metadata={"edgeml": tiny_spec().to_json(), "precision": "f32"},
    )
    return runtime


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name == "object" else pytest.mark.runtime)
        for name in RUNTIMES
    ]
)
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opens]:
    """Return a function that opens the tiny model with one of the runtimes."""
    with ExitStack() as stack:
        match request.param:
            case "object":
                yield TinyRuntime
            case "torch":
                yield torch_runtime
            case "tensorrt":
                pytest.importorskip("onnxruntime")
                pytest.importorskip("cuda.bindings")
                from tests.runtimes.tensorrt.engines import machine

                double = stack.enter_context(machine("11.4"))
                source = make_tiny_onnx(tmp_path / "tiny.onnx")
                engine = double.build(source, tmp_path / "tiny.engine")
                yield lambda: open_runtime(engine)
            case library:
                pytest.importorskip(library)
                source = make_tiny_onnx(tmp_path / "tiny.onnx")
                yield lambda: open_runtime(source, RuntimeOptions(runtime=library))


@pytest.mark.parametrize("count", [1, 4])
def test_the_logits_are_those_of_numpy(opens: Opens, count: int) -> None:
    batch = noise(count)
    expected = batch.mean(axis=(2, 3)) @ tiny_weights(3).T
    logits = opens().run(batch)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert logits.dtype == np.float32


def test_a_runtime_describes_itself(opens: Opens) -> None:
    runtime = opens()
    assert len(runtime.name.split()) > 1
    assert runtime.input_shape == (None, 3, 32, 32)
    assert runtime.metadata["precision"] == "f32"
    with Predictor(runtime) as predictor:
        assert predictor.spec == tiny_spec()


def test_a_result_outlives_the_next_call(opens: Opens) -> None:
    runtime = opens()
    first = runtime.run(noise(1))
    copy = first.copy()
    runtime.run(noise(1, seed=9))
    np.testing.assert_array_equal(first, copy)


def test_eight_threads_on_one_predictor_get_the_results_of_one(opens: Opens) -> None:
    with Predictor(opens()) as predictor:
        assert_same_in_threads(predictor)


def test_nan_is_refused_by_a_predictors_runtime(opens: Opens) -> None:
    runtime = Predictor(opens()).runtime
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="not finite"):
            runtime.run(np.full((1, 3, 32, 32), value, np.float32))


def test_an_array_of_another_size_is_an_error_in_one_line(opens: Opens) -> None:
    runtime = opens()
    if isinstance(runtime, TinyRuntime):
        pytest.skip("it checks nothing")
    with pytest.raises(InputError) as caught:
        runtime.run(np.zeros((1, 3, 16, 16), np.float32))
    assert "\n" not in str(caught.value)


def test_a_closed_runtime_raises_an_error(opens: Opens) -> None:
    runtime = opens()
    runtime.close()
    runtime.close()
    with pytest.raises(InferenceError, match="closed"):
        runtime.run(noise(1))


def test_an_output_that_the_model_does_not_have_is_refused(opens: Opens) -> None:
    with pytest.raises(SpecError, match="'absent'"):
        Predictor(opens(), spec=replace(tiny_spec(), output="absent"))


@pytest.mark.runtime
@pytest.mark.parametrize("library", FILES)
def test_an_unknown_device_is_refused_with_the_known_ones(library: str, tiny_onnx: Path) -> None:
    pytest.importorskip(library)
    with pytest.raises(InputError, match=r"(?i)'tpu' here; known are .*cpu"):
        open_runtime(tiny_onnx, RuntimeOptions(runtime=library, device="tpu"))


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("library", "name"),
    [("onnxruntime", "model.onnx"), ("openvino", "model.onnx"), ("openvino", "model.xml")],
)
def test_a_damaged_file_is_an_error_in_one_line(library: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    (tmp_path / name).write_bytes(b"<?xml no model")
    with pytest.raises(ModelLoadError, match=name) as caught:
        open_runtime(tmp_path / name, RuntimeOptions(runtime=library))
    assert "\n" not in str(caught.value)


@pytest.mark.runtime
@pytest.mark.parametrize("library", FILES)
def test_names_with_umlauts_are_read_back(library: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    spec = tiny_spec(["rotes Kleid", "grüner Rock", 'a "b" <c>'])
    source = make_tiny_onnx(tmp_path / "model.onnx", spec=spec)
    with Predictor(source, runtime=library) as predictor:
        assert predictor.spec == spec


def two_outputs(path: Path, output: str | None) -> Path:
    """Write the tiny model with a second output, `features`."""
    import onnx

    make_tiny_onnx(path, spec=replace(tiny_spec(), output=output))
    model = onnx.load(path)
    features = onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, ["N", 3])
    model.graph.output.insert(0, features)
    onnx.save(model, path)
    return path


@pytest.mark.runtime
@pytest.mark.parametrize("library", FILES)
def test_the_output_that_the_spec_names_is_returned(library: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    options: Any = RuntimeOptions(runtime=library)
    expected = {
        "flat": noise(2).mean(axis=(2, 3)),
        "logits": noise(2).mean(axis=(2, 3)) @ tiny_weights(3).T,
    }
    for name, logits in expected.items():
        path = two_outputs(tmp_path / f"{name}.onnx", name)
        runtime = open_runtime(path, options)
        assert runtime.metadata["output"] == name
        np.testing.assert_allclose(runtime.run(noise(2)), logits, atol=1e-5)
        with Predictor(runtime) as predictor:
            assert predictor.spec.output == name
    unnamed = two_outputs(tmp_path / "unnamed.onnx", None)
    with pytest.raises(SpecError, match="several outputs: flat, logits"):
        open_runtime(unnamed, options)
    chosen = replace(tiny_spec(), output="logits")
    assert open_runtime(unnamed, options, spec=chosen).metadata["output"] == "logits"
