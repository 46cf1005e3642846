"""Whether FP32 exports decide as PyTorch does: every supported network on 1000 real photos.

    python benchmarks/quantization/parity.py [--only resnet18 vit_tiny_patch16_224] [--photos 1000]

PyTorch against the exported ONNX in ONNX Runtime and the exported .xml in OpenVINO, both in FP32.
The weights are drawn, but for those of the trained run, and have been through a little training
(`common.random_network`); thresholds are fitted on other photos, so that they lie where the
scores are. Two ways to decide: as the spec says, of each photo the best garment; and each label by
its threshold alone. A flip is a label that is present by one and absent by the other.

One network at a time; what is done is kept in build/quantization/parity and not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import OUT, REAL, RUN, cached, machine, photos, random_network, require, write_json
from numpy.typing import NDArray
from torch import nn

from edgeml import ModelSpec, Preprocess
from edgeml.data import Dataset
from edgeml.image.reading import read_image
from edgeml.measure.thresholds import fit_thresholds
from edgeml.network.checkpoint import load_checkpoint
from edgeml.network.heads import Head
from edgeml.runtimes import RuntimeOptions, open_runtime
from edgeml.spec.decide import decide, probabilities
from edgeml_export.to_onnx import onnx_from_module
from edgeml_export.to_openvino import openvino_from_onnx

BATCH = 8

Logits = NDArray[np.float32]
Network = Callable[[NDArray[np.float32]], Logits]


@dataclass(frozen=True)
class Case:
    """A network at a size; transformers at their own."""

    name: str
    size: int = 224
    head: Head = "linear"

    def __str__(self) -> str:
        return self.name if self.head == "linear" else f"{self.name}-{self.head}"


CASES = (
    Case(REAL, 160),
    Case("cnn"),
    Case("cnn", head="csra"),
    Case("test_resnet", 160),
    Case("test_efficientnet", 160),
    Case("test_vit", 160),
    Case("test_vit", 160, "csra"),
    Case("mobilenetv3_small_100"),
    Case("mobilenetv3_small_100", head="csra"),
    Case("mobilenetv4_conv_small"),
    Case("mobilenetv4_conv_small", head="csra"),
    Case("mobilenetv3_large_100"),
    Case("repghostnet_100"),
    Case("efficientnet_lite0"),
    Case("efficientnet_b0"),
    Case("mobileone_s0"),
    Case("repvit_m0_9"),
    Case("fastvit_t8"),
    Case("mobilenetv4_conv_medium"),
    Case("vit_tiny_patch16_224"),
    Case("resnet18"),
    Case("resnet34"),
    Case("resnet50"),
    Case("resnet50", head="csra"),
    Case("vit_small_patch16_224"),
    Case("vit_base_patch16_224"),
    Case("vit_base_patch16_siglip_224"),
    Case("vit_base_patch16_siglip_224", head="csra"),
    Case("vit_base_patch16_siglip_gap_224"),
)
"""The networks of tests/export/test_models.py, and the trained one."""


@cache
def chosen(count: int) -> tuple[Dataset, Dataset]:
    """Return photos to fit thresholds on, of the validation side, and photos to compare on.

    The latter are the test side, filled up from the train side.
    """
    val, test, train = (photos().part(name) for name in ("val", "test", "train"))
    rng = np.random.default_rng(1)
    fitting = val.select(np.sort(rng.choice(len(val), 200, replace=False)))
    every = [photos().paths.index(path) for path in (*test.paths, *train.paths)][:count]
    return fitting, photos().select(np.array(every))


def frames_of(dataset: Dataset, name: str, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode and fit photos (N, H, W, 3) once for each size."""

    def make() -> NDArray[np.uint8]:
        size = preprocess.min_decode_size
        return np.stack([preprocess.fit(read_image(p, at_least=size)) for p in dataset.paths])

    how = f"{preprocess.size[0]}-{preprocess.resize}-{preprocess.interpolation}"
    return cached(OUT / "inputs" / f"{name}-{len(dataset)}-{how}.npy", make)


def logits_of(network: Network, frames: NDArray[np.uint8], preprocess: Preprocess) -> Logits:
    parts = [
        network(preprocess.normalize(list(frames[start : start + BATCH])))
        for start in range(0, len(frames), BATCH)
    ]
    return np.concatenate(parts)


def by_torch(module: nn.Module, batch: NDArray[np.float32]) -> Logits:
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(batch)).numpy(), np.float32)


def network_of(case: Case) -> tuple[nn.Module, ModelSpec]:
    if case.name != REAL:
        return random_network(case.name, case.size, case.head)
    require(RUN)
    return load_checkpoint(RUN)


def compared(case: Case, count: int, threads: int) -> dict[str, Any]:
    """Export one network and compare it on both runtimes."""
    started = time.perf_counter()
    module, spec = network_of(case)
    network = partial(by_torch, module)
    fitting, judging = chosen(count)
    if case.name != REAL:
        known = logits_of(network, frames_of(fitting, "fitting", spec.preprocess), spec.preprocess)
        thresholds = fit_thresholds(probabilities(known, spec), fitting.targets, "recall>=0.5")
        spec = replace(spec, thresholds=thresholds)
    frames = frames_of(judging, "judging", spec.preprocess)
    expected = logits_of(network, frames, spec.preprocess)
    folder = OUT / "parity" / "files"
    folder.mkdir(parents=True, exist_ok=True)
    written = onnx_from_module(module, spec, folder / f"{case}.onnx")
    files = {
        "onnxruntime": written,
        "openvino": openvino_from_onnx(written, folder / f"{case}.xml"),
    }
    result: dict[str, Any] = {
        "network": str(case),
        "size": case.size,
        "photos": len(judging),
        "labels": len(spec.labels),
        "parameters": sum(p.numel() for p in module.parameters()),
        "spread": float(np.sqrt(expected.astype(np.float64).var(axis=0).mean())),
        "largest": float(np.abs(expected).max()),
        "nearest": nearest(expected, spec),
    }
    for engine, file in files.items():
        runtime = open_runtime(file, RuntimeOptions(runtime=engine, threads=threads))
        got = logits_of(runtime.run, frames, spec.preprocess)
        runtime.close()
        result[engine] = judged(expected, got, spec, [path.name for path in judging.paths])
    for file in (written, files["openvino"], files["openvino"].with_suffix(".bin")):
        file.unlink()
    return {**result, "seconds": time.perf_counter() - started}


def judged(expected: Logits, got: Logits, spec: ModelSpec, names: list[str]) -> dict[str, Any]:
    """Return the largest difference, and each flip with its logits and threshold."""
    alone = replace(spec, groups=())
    figures: dict[str, Any] = {
        "max_abs": float(np.abs(expected.astype(np.float64) - got).max()),
        "claimed": int(decide(probabilities(expected, spec), spec).sum()),
        "claimed_alone": int(decide(probabilities(expected, spec), alone).sum()),
    }
    for key, rule in (("flips", spec), ("flips_alone", alone)):
        before, after = (decide(probabilities(side, spec), rule) for side in (expected, got))
        figures[key] = [
            {
                "photo": names[row],
                "label": spec.labels[column],
                "torch": float(expected[row, column]),
                "exported": float(got[row, column]),
                "threshold": float(_logit(spec.thresholds[column])),
            }
            for row, column in np.argwhere(before != after)
        ]
    return figures


def nearest(logits: Logits, spec: ModelSpec) -> dict[str, float]:
    """Return how near a decision came to another one, in units of a logit.

    `threshold`: the least distance of a logit from its label's threshold; `group`: the least lead
    of a group's best label over the second.
    """
    distances = np.abs(logits - _logit(np.asarray(spec.thresholds)))
    leads = [np.inf]
    for group in spec.groups:
        if group.rule == "one":
            columns = [spec.labels.index(label) for label in group.labels]
            best = np.sort(logits[:, columns], axis=1)
            leads.append(float((best[:, -1] - best[:, -2]).min()))
    return {"threshold": float(distances.min()), "group": min(leads)}


def _logit(probability: Any) -> Any:
    p = np.clip(np.asarray(probability, np.float64), 1e-12, 1 - 1e-12)
    return np.log(p / (1 - p))


def row_of(result: dict[str, Any]) -> str:
    cells = [result["network"], str(result["size"])]
    cells += [f"{result['spread']:.2g}", f"{result['largest']:.2g}"]
    for engine in ("onnxruntime", "openvino"):
        figures = result[engine]
        flips = f"{len(figures['flips'])}, {len(figures['flips_alone'])}"
        cells += [f"{figures['max_abs']:.1e}", flips]
    near = result["nearest"]
    cells += [f"{near['threshold']:.1e}", f"{near['group']:.1e}", f"{result['seconds']:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[str(case) for case in CASES])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all that is there into one file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = ["network", "px", "spread of logits", "largest", "ONNX Runtime, max abs", "flips"]
    head += ["OpenVINO, max abs", "flips", "nearest threshold", "nearest in a group", "s"]
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|", flush=True)
    results = []
    for case in CASES:
        if options.only and str(case) not in options.only:
            continue
        file = OUT / "parity" / f"{str(case).replace(', ', '-')}.json"
        if not file.exists() or json.loads(file.read_text())["photos"] != options.photos:
            write_json(file, compared(case, options.photos, options.threads))
        results.append(json.loads(file.read_text()))
        print(row_of(results[-1]), flush=True)
    if options.json:
        write_json(options.json, {**machine(), "results": results})


if __name__ == "__main__":
    main()
