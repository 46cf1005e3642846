"""Fine-tune with timm's own parts, as its `train.py --task multilabel` does.

    python benchmarks/training/timm_multilabel.py --out build/training/timm-0 --seed 0 [--test]

timm's wheel has no train.py, and its newest one that could be had here (1.0.29.dev0) does not know
`--task multilabel` yet. So this follows that train.py's course, step by step, with the parts that
timm 1.0.31 installs: create_loader, MultiLabelClassificationTask and its evaluator,
create_optimizer_v2, create_scheduler_v2, ModelEmaV3. timm reads no tables of multi-label pictures:
`TableReader` is all that had to be added. Names and defaults of the options are train.py's.

The best epoch by the EMA's validation mAP is kept. Without --test the test side is not read.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from timm.data import MultiLabelTarget, create_loader, resolve_data_config
from timm.data.dataset import ImageDataset
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import MultiLabelClassificationTask
from timm.utils import random_seed
from torch import nn

from edgeml.data import Dataset, read_dataset

WEIGHTS = Path("../shared/models/mobilenetv2_100/mobilenetv2_100_same_in1k.safetensors")
SPLIT = Path("build/training/split.csv")

EVAL_CROPS: dict[str, dict[str, Any]] = {
    "center .875": {"crop_pct": 0.875},
    "center 1": {"crop_pct": 1.0},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash"},
}
"""How to make a validation image square: timm's default first."""


class TableReader:
    """A reader in timm's sense: the images of one split, with multi-hot targets."""

    def __init__(self, side: Dataset) -> None:
        self._paths, self._targets = side.paths, side.present.astype(np.float32)

    def __getitem__(self, index: int) -> tuple[BinaryIO, NDArray[np.float32]]:
        return self._paths[index].open("rb"), self._targets[index]

    def __len__(self) -> int:
        return len(self._paths)


def dataset_of(side: Dataset) -> ImageDataset:
    """Return timm's dataset; Pillow decodes the images."""
    target = MultiLabelTarget(len(side.labels), dense=True)
    return ImageDataset("", reader=TableReader(side), target_transform=target)


def build(options: argparse.Namespace, labels: int) -> nn.Module:
    """Build the network with ImageNet weights and a new head."""
    model: nn.Module = create_model(
        "mobilenetv2_100",
        num_classes=labels,
        pad_type="same",
        drop_rate=options.drop,
    )
    weights = load_file(options.weights)
    head = {key: value for key, value in weights.items() if key.startswith("classifier.")}
    missing, unknown = model.load_state_dict(
        {key: value for key, value in weights.items() if key not in head}, strict=False
    )
    if set(missing) != set(head) or unknown:
        raise SystemExit(f"{options.weights} does not fit: {missing[:3]}, {unknown[:3]}")
    if options.head_init_bias is not None:
        nn.init.constant_(model.get_classifier().bias, options.head_init_bias)  # type: ignore[operator]
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def evaluate(
    task: MultiLabelClassificationTask, model: nn.Module, loader: Any
) -> tuple[dict[str, float], NDArray[np.float32], NDArray[np.float32]]:
    """Return timm's metrics in percent, logits and targets, as `validate` of train.py does."""
    evaluator = task.create_evaluator()
    model.eval()
    logits, targets = [], []
    with torch.inference_mode():
        for pictures, target in loader:
            output = model(pictures.contiguous(memory_format=torch.channels_last))
            evaluator.update(output, target)
            logits.append(output.float().numpy())
            targets.append(target.numpy())
    return dict(evaluator.compute()), np.concatenate(logits), np.concatenate(targets)


def train_one_epoch(
    task: MultiLabelClassificationTask,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    *,
    epoch: int,
    clip: float | None,
) -> float:
    """Take the steps of one epoch; return the mean loss."""
    task.get_trainable_module().train()
    losses, updates = [], epoch * len(loader)
    for pictures, target in loader:
        loss = task(pictures.contiguous(memory_format=torch.channels_last), target)["loss"]
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(task.get_clip_parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        task.update_ema(step=updates)
        scheduler.step_update(num_updates=updates)
        losses.append(loss.item())
    return float(np.mean(losses))


def loaders(
    options: argparse.Namespace, dataset: Dataset, config: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the training loader and the validation loader, one for each way to crop."""
    common = {
        "input_size": config["input_size"],
        "batch_size": options.batch_size,
        "mean": config["mean"],
        "std": config["std"],
        "num_workers": options.workers,
        "device": torch.device("cpu"),
    }
    train = create_loader(
        dataset_of(dataset.part("train")),
        is_training=True,
        scale=tuple(options.scale),
        color_jitter=options.color_jitter,
        interpolation=options.train_interpolation,
        re_prob=options.reprob,
        re_mode="pixel",
        **common,
    )
    val = {
        name: create_loader(
            dataset_of(dataset.part("val")), interpolation=config["interpolation"], **common, **crop
        )
        for name, crop in EVAL_CROPS.items()
        if name == options.eval_crop or options.all_crops
    }
    return train, val


def run(options: argparse.Namespace) -> None:
    random_seed(options.seed, 0)
    dataset = read_dataset(options.split)
    model = build(options, len(dataset.labels))
    requested = {
        "input_size": (3, options.size, options.size),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    config = resolve_data_config(requested, model=model)
    train, val = loaders(options, dataset, config)
    task = MultiLabelClassificationTask(model, criterion_kwargs={"smoothing": options.smoothing})
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=options.lr, weight_decay=options.weight_decay
    )
    task.setup_ema(decay=options.model_ema_decay, use_warmup=True)
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
        warmup_lr=1e-5,
        min_lr=0,
        step_on_epochs=False,
        updates_per_epoch=len(train),
    )
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"map": -1.0}
    began = time.perf_counter()
    for epoch in range(options.stop_epoch or epochs):
        started = time.perf_counter()
        loss = train_one_epoch(
            task, train, optimizer, scheduler, epoch=epoch, clip=options.clip_grad
        )
        seconds = time.perf_counter() - started
        # train.py measures the plain weights too, and then goes by the EMA: left out, to save time.
        ema, _, _ = evaluate(task, task.get_eval_model(ema=True).module, val[options.eval_crop])
        scheduler.step(epoch + 1)
        row = {"epoch": epoch + 1, "train_loss": loss, "seconds": seconds, **ema}
        history.append(row)
        print(json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
        if ema["map"] > best["map"]:
            state = copy.deepcopy(task.get_eval_model(ema=True).module.state_dict())
            best = {"map": ema["map"], "epoch": epoch + 1, "state": state}
    model.load_state_dict(best.pop("state"))
    finish(options, dataset, config, task, model, val, history, best, time.perf_counter() - began)


def finish(
    options: argparse.Namespace,
    dataset: Dataset,
    config: dict[str, Any],
    task: MultiLabelClassificationTask,
    model: nn.Module,
    val: dict[str, Any],
    history: list[dict[str, float]],
    best: dict[str, Any],
    seconds: float,
) -> None:
    """Save the predictions of the best epoch, and the settings of the run."""
    options.out.mkdir(parents=True, exist_ok=True)
    crops = {name: evaluate(task, model, loader) for name, loader in val.items()}
    arrays = {"val_logits": crops[options.eval_crop][1], "val_targets": crops[options.eval_crop][2]}
    if options.test:
        loader = create_loader(
            dataset_of(dataset.part("test")),
            input_size=config["input_size"],
            batch_size=options.batch_size,
            mean=config["mean"],
            std=config["std"],
            interpolation=config["interpolation"],
            num_workers=options.workers,
            device=torch.device("cpu"),
            **EVAL_CROPS[options.eval_crop],
        )
        _, arrays["test_logits"], arrays["test_targets"] = evaluate(task, model, loader)
    np.savez(options.out / "predictions.npz", labels=np.array(dataset.labels), **arrays)
    summary = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "best": best,
        "crops_val_map": {name: result[0]["map"] for name, result in crops.items()},
        "seconds": round(seconds, 1),
        "history": history,
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps({"best": best, "val mAP by crop": summary["crops_val_map"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", type=Path, default=SPLIT)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--stop-epoch", type=int, help="stop after it; the schedule stays")
    parser.add_argument("--warmup-epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.08, 1.0))
    parser.add_argument("--color-jitter", type=float, default=0.4)
    parser.add_argument("--train-interpolation", default="random")
    parser.add_argument("--reprob", type=float, default=0.0)
    parser.add_argument("--drop", type=float, default=0.0)
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--clip-grad", type=float, default=None)
    parser.add_argument("--head-init-bias", type=float, default=None)
    parser.add_argument("--model-ema-decay", type=float, default=0.9998)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--eval-crop", choices=tuple(EVAL_CROPS), default="center .875")
    parser.add_argument(
        "--all-crops", action="store_true", help="tell the other crops' val mAP too"
    )
    parser.add_argument("--test", action="store_true", help="read the test side, once, at the end")
    options = parser.parse_args()
    for path in (options.split, options.weights):
        if not path.is_file():
            raise SystemExit(f"There is no {str(path)!r}: see benchmarks/training/README.md.")
    run(options)


if __name__ == "__main__":
    main()
