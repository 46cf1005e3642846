"""edgeml beside other tools that predict: the same weights, pictures and threads, in turns.

    python benchmarks/predict/peers.py [--tools ...] [--threads 2 1] [--json FILE]

MobileNetV2 with ImageNet weights and 1000 classes; frames of 640 x 480 and bytes of 1080p JPEGs
made out of photos. Each tool that is not a dependency of edgeml is installed into an environment of
its own, build/predict/venvs/TOOL, at pinned versions and without its dependencies. What it shares
with edgeml (numpy, OpenCV, ONNX Runtime, OpenVINO, PyTorch) it finds in the environment that runs
this script, so that all run on the same versions. Ultralytics is AGPL-3.0: it is run, as any user
would, in its own environment, and nothing of it is in this repository.

What a tool says is compared, before it is timed, with a full decode and Pillow's antialiased
resize.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from bars import bar, conclude, line, show
from material import OUT, child_environment, for_tool, merge_json, network, pictures
from turns import Block, Pace, cpu_ms, figures, ratio, take_turns, wall_ms

from edgeml.errors import InferenceError
from edgeml.image.modes import Resize
from edgeml.spec.decide import probabilities

HERE = Path(__file__).parent

PINS = {
    "model_api": ["openvino-model-api==0.4.7"],
    "transformers": [
        "transformers==4.57.6",
        "optimum==2.1.0",
        "optimum-onnx==0.1.0",
        "huggingface-hub==0.36.2",
        "tokenizers==0.22.2",
        "regex==2026.11.19",
    ],
    "ultralytics": [
        "ultralytics==8.4.190",
        "ultralytics-thop==2.2.3",
        "polars==2.1.0",
        "polars-runtime-32==2.1.0",
    ],
}
"""What is installed into a tool's own environment."""

AGAINST = {
    "model_api": "edgeml-openvino",
    "model_api-bf16": "edgeml-bf16",
    "transformers": "edgeml-onnxruntime",
    "ultralytics": "edgeml-crop",
    "cv2.dnn": "edgeml-onnxruntime",
}
"""Each tool, and edgeml on the same runtime; cv2.dnn is one itself."""

TOOLS = (
    "edgeml-onnxruntime",
    "edgeml-openvino",
    "edgeml-crop",
    "edgeml-bf16",
    "edgeml-spinning",
    *AGAINST,
)

WAYS: tuple[Resize, ...] = ("squash", "crop")

KINDS = ("frames", "jpegs")
"""640 x 480 BGR, and the bytes of 1080p files."""


@dataclass(frozen=True)
class Peer:
    """A tool's process: `peer.py` in another Python, which reads and writes JSON lines."""

    process: subprocess.Popen[str]
    about: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, **command: object) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            InferenceError: The tool failed or its process ended.
        """
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(json.dumps(command), file=self.process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as err:
            raise InferenceError(f"The process ended with status {self.process.wait(5)}.") from err
        if "error" in answer:
            raise InferenceError(answer["error"])
        return answer

    def block(self, seconds: float) -> Block:
        return Block(**self.ask(do="block", seconds=seconds))

    def answers(self) -> list[list[tuple[int, float]]]:
        answers: list[list[tuple[int, float]]] = self.ask(do="answers")["answers"]
        return answers


def python_of(tool: str) -> Path:
    """Give the Python that runs a tool, and install the tool if it is not there."""
    tool = tool.removesuffix("-bf16")
    if tool not in PINS:
        return Path(sys.executable)
    folder = OUT / "venvs" / tool
    python, done = folder / "bin/python", folder / "installed.json"
    pins = json.dumps(PINS[tool])
    if done.exists() and done.read_text() == pins:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {', '.join(PINS[tool])}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *PINS[tool]]
    subprocess.run(install, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done.write_text(pins)
    return python


@contextmanager
def open_peer(tool: str, model: Path, threads: int, where: str) -> Iterator[Peer]:
    """Start a tool's process with a model and a folder of images, and make its first call."""
    command = [str(python_of(tool)), str(HERE / "peer.py"), tool, str(model), str(threads), where]
    environment = {
        **child_environment(threads),
        "HF_HUB_OFFLINE": "1",
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(OUT.absolute() / "ultralytics"),
    }
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            peer = Peer(process)
            yield replace(peer, about=peer.ask(do="open"))
        finally:
            process.kill()


def reference(where: Sequence[Path], resize: Resize) -> list[Any]:
    """Give what a full decode and Pillow's antialiased bilinear resize lead to: (1000,) each."""
    from usual import bare_ort, pillow_way

    from edgeml import Predictor

    with Predictor(network("imagenet")) as predictor:
        spec = predictor.spec
    run = bare_ort(network("imagenet"), 1)
    found = []
    for file in where:
        batch = pillow_way(file, replace(spec.preprocess, resize=resize))
        found.append(probabilities(run(batch), spec)[0])
    return found


def agreement(
    answers: Sequence[Sequence[tuple[int, float]]], references: Sequence[Any]
) -> dict[str, Any]:
    """Say how far a tool's answers are from the reference's, over pictures.

    Probabilities are compared for the five classes that the tool names. `max lost` is by how much
    the reference prefers its own best class to the tool's: little, if two were as good as equal.
    """
    worst, lost = [], []
    for top, scores in zip(answers, references, strict=True):
        worst.append(max(abs(p - float(scores[number])) for number, p in top))
        lost.append(float(scores.max() - scores[top[0][0]]))
    return {
        "pictures": len(lost),
        "same best class": lost.count(0.0),
        "max lost": max(lost),
        "max |dp|": max(worst),
        "mean |dp|": float(np.mean(worst)),
    }


def measure(tools: Sequence[str], kind: str, threads: int, pace: Pace) -> dict[str, Any]:
    """Let tools take turns on one kind of picture; gives a row."""
    where = pictures(480, 640, 16) if kind == "frames" else pictures(1080, 1920, 24)
    suffix = ":frames" if kind == "frames" else ""
    references = {way: reference(where, way) for way in WAYS}
    row: dict[str, Any] = {"ways": {}, "failures": {}, "about": {}, "bars": []}
    with ExitStack() as stack:
        peers: dict[str, Peer] = {}
        for tool in tools:
            try:
                source = f"{where[0].parent}{suffix}"
                peer = stack.enter_context(open_peer(tool, for_tool(tool), threads, source))
                cropped = tool in ("ultralytics", "edgeml-crop")
                found = agreement(peer.answers(), references["crop" if cropped else "squash"])
            except (InferenceError, subprocess.CalledProcessError) as err:
                row["failures"][tool] = str(err)
                continue
            peers[tool] = peer
            row["about"][tool] = {**peer.about, "agreement": found}
        blocks = take_turns({tool: peer.block for tool, peer in peers.items()}, pace)
    row["ways"] = {
        tool: {**figures(taken), **row["about"][tool]["agreement"]}
        for tool, taken in blocks.items()
    }
    for tool, ours in AGAINST.items():
        if tool in blocks and ours in blocks:
            times = ratio(wall_ms(blocks[tool]), wall_ms(blocks[ours]))
            row["bars"].append(bar(f"{tool} over {ours}", times, at_least=1))
            times = ratio(cpu_ms(blocks[tool]), cpu_ms(blocks[ours]))
            row["bars"].append(bar(f"{tool} over {ours}, CPU", times))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for tool in options.tools:
        python_of(tool)
        for_tool(tool)
    failed = []
    for kind in options.only:
        for threads in options.threads:
            row = measure(options.tools, kind, threads, Pace(rounds=options.rounds))
            title = f"{kind}, {threads} threads"
            show(title, row)
            failed += [f"{title}: {line(each)}" for each in row["bars"] if each["holds"] is False]
            failed += [f"{title}: {tool}: {why}" for tool, why in row["failures"].items()]
            if options.json:
                merge_json(options.json, {title: row})
    conclude(failed)


if __name__ == "__main__":
    main()
