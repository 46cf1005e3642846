"""Steps of gpu_check.py: CUDA itself, and ONNX Runtime on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from benchmarks import gpu_common as common
from benchmarks.gpu_common import Notes


def cuda(notes: Notes, work: Path) -> None:
    """Memory, pinned buffers, streams, graphs and errors, on CUDA itself."""
    common.require_gpu()
    import numpy as np

    from edgeml.errors import InferenceError
    from edgeml.runtimes.tensorrt import cuda

    notes.figure("gpu", asdict(cuda.this_gpu()))
    shape = (1 << 24,)  # 64 MiB of float32
    with (
        cuda.stream() as stream,
        cuda.pinned_array(shape, "float32") as sent,
        cuda.pinned_array(shape, "float32") as back,
        cuda.device_memory(sent.nbytes) as address,
    ):

        def there_and_back() -> None:
            stream.to_device(address, sent)
            stream.to_host(back, address)

        sent[:] = np.random.default_rng(0).random(shape, np.float32)
        there_and_back()
        stream.wait()
        notes.must("64 MiB come back from the GPU as they were", np.array_equal(sent, back))
        with cuda.captured(stream, there_and_back) as graph:
            sent[:] = np.random.default_rng(1).random(shape, np.float32)
            back[:] = 0
            stream.launch(graph)
            stream.wait()
            notes.must("a replayed graph copies what is there by then", np.array_equal(sent, back))

        def copied() -> None:
            there_and_back()
            stream.wait()

        notes.figure("copy_64mib_both_ways_ms", common.latency(copied))
    free = common.free_memory()
    for _ in range(200):
        with (
            cuda.stream(),
            cuda.pinned_array((1 << 18,), "float32"),
            cuda.device_memory(1 << 24),
        ):
            pass
    notes.must("200 allocations leave the memory as it was", common.free_memory() >= free)
    try:
        with cuda.device_memory(1 << 50):
            notes.must("a pebibyte cannot be had", False)
    except InferenceError as err:
        notes.figure("out_of_memory", str(err))
        notes.must("running out of memory is an error that says so", "Memory" in str(err))
    with cuda.device_memory(1 << 20):
        notes.must("the GPU can be used after that", True)


def ort_cuda(notes: Notes, work: Path) -> None:
    """ONNX Runtime's CUDA provider beside its CPU provider: numbers, threads, graphs, latency."""
    common.require_gpu()
    from edgeml.predict.predictor import Predictor
    from edgeml.runtimes import RuntimeOptions
    from edgeml.runtimes.ort import OrtRuntime

    _require_cuda_provider()
    for net, precision, path in common.made_files(work):
        name = f"{net}_{precision}"
        with Predictor(path) as here, Predictor(path, device=common.DEVICE) as there:
            notes.figure(
                f"{name}_runtime", [there.runtime.name, there.runtime.metadata["precision"]]
            )
            batch = common.pictures(here, work)
            # Its precision for INT8 is unknown: report it, whatever it is.
            common.agree(
                notes, name, precision, here, there.runtime, batch, told_only=precision == "int8"
            )
            common.in_threads(notes, name, there.runtime, batch)
            common.time_batches(notes, name, there.runtime, batch)
        if precision == "fp32":
            fast = OrtRuntime(path, RuntimeOptions(device=common.DEVICE, precision="fast"))
            common.time_batches(notes, f"{net}_{fast.metadata['precision']}_fast", fast, batch)


def ort_graphs(notes: Notes, work: Path) -> None:
    """The same with graphs that are recorded once for each shape, through buffers on the GPU."""
    common.require_gpu()
    from edgeml.predict.predictor import Predictor
    from edgeml.runtimes import RuntimeOptions
    from edgeml.runtimes.ort import OrtRuntime

    _require_cuda_provider()
    for net, precision, path in common.made_files(work):
        if precision == "int8":
            continue
        name = f"{net}_{precision}"
        replayed = OrtRuntime(path, RuntimeOptions(device=common.DEVICE), graphs=True)
        with Predictor(path) as here:
            batch = common.pictures(here, work)
            for _ in range(3):  # runs plainly, records, replays
                common.agree(notes, name, precision, here, replayed, batch)
            common.in_threads(notes, name, replayed, batch)
            common.time_batches(notes, name, replayed, batch)
        replayed.close()


def ort_plugins(notes: Notes, work: Path) -> None:
    """Providers that installed packages bring, each by its name."""
    common.require_gpu()
    import onnxruntime as ort

    from edgeml.errors import EdgemlError
    from edgeml.predict.predictor import Predictor
    from edgeml.runtimes.ort_providers import _plugins

    packages = {name: module.get_ep_name() for name, module in _plugins()}
    notes.figure("packages", packages)
    notes.figure("devices", sorted({d.ep_name for d in getattr(ort, "get_ep_devices", list)()}))
    if not packages:
        raise common.SkippedError("no package onnxruntime-ep-* is installed")
    for package, provider in packages.items():
        for net, precision, path in common.made_files(work):
            name = f"{provider}_{net}_{precision}"
            try:
                with Predictor(path) as here, Predictor(path, device=provider) as there:
                    batch = common.pictures(here, work)
                    common.agree(notes, name, precision, here, there.runtime, batch)
                    common.time_batches(notes, name, there.runtime, batch)
            except EdgemlError as err:
                notes.figure(f"{name}_refused", f"{package}: {common.line(err)}")


def _require_cuda_provider() -> None:
    from edgeml.errors import InputError
    from edgeml.runtimes.ort_providers import provider_for

    try:
        provider_for(common.DEVICE)
    except InputError as err:
        raise common.SkippedError(common.line(err)) from err
