"""The same four images and labels, as each tool that people annotate with exports them.

`1.png` has cat and indoor, `2.png` dog, `3.png` nothing, `4.png` dog and indoor.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.readers.sets import encoded, put

LABELS: dict[str, tuple[str, ...]] = {
    "1.png": ("cat", "indoor"), "2.png": ("dog",), "3.png": (), "4.png": ("dog", "indoor"),
}  # fmt: skip
SIDES = {"1.png": "train", "2.png": "train", "3.png": "val", "4.png": "test"}
NAMES = ("cat", "dog", "indoor")
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def images(folder: Path, prefix: str = "") -> None:
    for seed, name in enumerate(LABELS):
        put(folder / f"{prefix}{name}", encoded(seed))


def images_by_side(root: Path, folders: dict[str, str]) -> None:
    for seed, name in enumerate(LABELS):
        put(root / folders[SIDES[name]] / name, encoded(seed))


def numbers(name: str) -> list[int]:
    return [NAMES.index(label) for label in LABELS[name]]


def write_json(file: Path, document: object) -> Path:
    return put(file, json.dumps(document))


# Label Studio


def ls_task(number: int, image: str, labels: tuple[str, ...] | None, **more: Any) -> dict[str, Any]:
    """Return a task as exported; without labels, it is not annotated."""
    result = [{"id": "r", "type": "choices", "from_name": "scene", "to_name": "image",
               "value": {"choices": list(labels or ())}}]  # fmt: skip
    done = {"id": 10 + number, "was_cancelled": False, "ground_truth": False,
            "result": result if labels else []}  # fmt: skip
    guess = {"model_version": "m", "result": [
        {"type": "choices", "from_name": "scene", "value": {"choices": ["guessed"]}}]}  # fmt: skip
    return {"id": number, "data": {"image": image}, "annotations": [] if labels is None else [done],
            "predictions": [guess]} | more  # fmt: skip


def label_studio_json(root: Path) -> Path:
    images(root / "images", "0a1b2c3d-")
    tasks = [
        ls_task(n, f"/data/upload/1/0a1b2c3d-{name}", labels)
        for n, (name, labels) in enumerate(LABELS.items())
    ]
    return write_json(root / "project-1.json", tasks)


def label_studio_local_files(root: Path) -> Path:
    images(root / "pets")
    tasks = [
        ls_task(n, f"/data/local-files/?d=mnt/pets/{name}", labels)
        for n, (name, labels) in enumerate(LABELS.items())
    ]
    return write_json(root / "project-1.json", tasks)


def label_studio_min(root: Path) -> Path:
    images(root)
    records = []
    for n, (name, labels) in enumerate(LABELS.items()):
        record: dict[str, Any] = {"image": f"https://x.org/a%20b/{name}?w=1", "source": "web"}
        record["id"] = n
        if labels:
            record["scene"] = labels[0] if len(labels) == 1 else {"choices": list(labels)}
        records.append(record | {"annotator": 1, "annotation_id": n, "created_at": "", "updated_at":
                                 "", "lead_time": 1.5})  # fmt: skip
    return write_json(root / "project-1-min.json", records)


def label_studio_csv(root: Path) -> Path:
    images(root)
    lines = ["annotation_id,annotator,created_at,id,image,lead_time,scene,updated_at"]
    for n, (name, labels) in enumerate(LABELS.items()):
        cell = labels[0] if len(labels) == 1 else json.dumps({"choices": labels}) if labels else ""
        cell = '"' + cell.replace('"', '""') + '"'
        lines.append(f"{n},1,2024-01-01,{n},/data/upload/{name},1.5,{cell},2024-01-01")
    return put(root / "project-1.csv", "\n".join(lines))


# Others


def cvat(root: Path) -> Path:
    images(root / "images")
    labels = "".join(f"<label><name>{name}</name></label>" for name in (*NAMES, "rare"))
    parts = [
        f'<image id="{n}" name="{name}" width="20" height="16">'
        + "".join(f'<tag label="{label}" source="manual"></tag>' for label in labels_of)
        + "</image>"
        for n, (name, labels_of) in enumerate(LABELS.items())
    ]
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task>'
        f"<labels>{labels}</labels></task></meta>{''.join(parts)}</annotations>"
    )
    return put(root / "annotations.xml", text)


def cvat_project(root: Path) -> Path:
    file = cvat(root)
    text = file.read_text()
    for name, side in SIDES.items():
        subset = {"train": "Train", "val": "Validation", "test": "Test"}[side]
        text = text.replace(f'name="{name}"', f'name="{name}" subset="{subset}"')
        target = root / "images" / subset
        target.mkdir(exist_ok=True)
        (root / "images" / name).rename(target / name)
    put(file, text)
    return root


def datumaro(root: Path) -> Path:
    entries = [{"name": name, "parent": "", "attributes": []} for name in NAMES]
    for side in ("train", "val", "test"):
        items = [
            {"id": name[:1], "image": {"path": name, "size": [16, 20]}, "annotations": [
                {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": number}
                for number in numbers(name)]}
            for name in LABELS if SIDES[name] == side
        ]  # fmt: skip
        categories = {"label": {"labels": entries, "label_groups": [], "attributes": []}}
        document = {"dm_format_version": "1.0", "media_type": 2, "infos": {},
                    "categories": categories, "items": items}  # fmt: skip
        write_json(root / "annotations" / f"{side}.json", document)
    images_by_side(root / "images", {side: side for side in SIDES.values()})
    return root


def roboflow(root: Path) -> Path:
    images_by_side(root, FOLDERS)
    for side, folder in FOLDERS.items():
        lines = ["filename, " + ", ".join(NAMES)]
        for name, labels in LABELS.items():
            if SIDES[name] == side:
                lines.append(", ".join([name, *(str(int(n in labels)) for n in NAMES)]))
        put(root / folder / "_classes.csv", "\n".join(lines) + "\n")
    return root


def voc(root: Path, images_folder: str = "JPEGImages", folder: str = "Annotations") -> Path:
    images(root / images_folder)
    for name, labels in LABELS.items():
        objects = "".join(
            f"<object><name>{label}</name><difficult>0</difficult></object>" for label in labels
        )
        text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
        put(root / folder / f"{name[:1]}.xml", text)
    for side in ("train", "val", "test"):
        stems = [name[:1] for name in LABELS if SIDES[name] == side]
        put(root / "ImageSets/Main" / f"{side}.txt", "\n".join(stems) + "\n")
    return root


def voc_class_lists(root: Path) -> Path:
    images(root / "JPEGImages")
    for label in NAMES:
        for side in ("train", "val", "test"):
            lines = [
                f"{name[:1]} {1 if label in labels else -1:2}"
                for name, labels in LABELS.items()
                if SIDES[name] == side
            ]
            put(root / "ImageSets/Main" / f"{label}_{side}.txt", "\n".join(lines) + "\n")
    return root


def voc_beside(root: Path) -> Path:
    """As LabelImg writes it: an .xml next to each image."""
    images(root)
    for name, labels in LABELS.items():
        objects = "".join(f"<object><name>{label}</name></object>" for label in labels)
        put(root / f"{name[:1]}.xml", f"<annotation>{objects}</annotation>")
    return root


def imagefolder_csv(root: Path) -> Path:
    images(root)
    cells = {name: json.dumps(labels).replace('"', '""') for name, labels in LABELS.items()}
    rows = "".join(f'{name},"{cell}"\n' for name, cell in cells.items())
    put(root / "metadata.csv", "file_name,labels\n" + rows)
    return root


def imagefolder_jsonl(root: Path) -> Path:
    folders = {"train": "train", "val": "validation", "test": "test"}
    images_by_side(root, folders)
    for side, folder in folders.items():
        lines = [
            json.dumps({"file_name": name, "labels": labels, "caption": "a photo"})
            for name, labels in LABELS.items()
            if SIDES[name] == side
        ]
        put(root / folder / "metadata.jsonl", "\n".join(lines) + "\n")
    return root


def fiftyone_samples(root: Path) -> Path:
    images(root / "data")
    samples = [
        {"_id": {"$oid": str(n)}, "filepath": f"data/{name}", "_media_type": "image",
         "tags": [{"val": "validation"}.get(SIDES[name], SIDES[name])], "metadata": None,
         "ground_truth": {"_cls": "Classifications", "classifications": [
             {"_cls": "Classification", "label": label, "confidence": None} for label in labels]},
         "predictions": {"_cls": "Classification", "label": "guessed", "confidence": 0.5}}
        for n, (name, labels) in enumerate(LABELS.items())
    ]  # fmt: skip
    write_json(root / "metadata.json", {"version": "1.0"})
    write_json(root / "samples.json", {"samples": samples})
    return root


def fiftyone_labels(root: Path) -> Path:
    images(root / "data")
    labels = {name[:1]: numbers(name) for name in LABELS}
    return write_json(root / "labels.json", {"classes": NAMES, "labels": labels})


def tsv(root: Path) -> Path:
    images(root)
    lines = ["path\tlabels\tsplit"]
    lines += [f"{name}\t{';'.join(labels)}\t{SIDES[name]}" for name, labels in LABELS.items()]
    return put(root / "labels.tsv", "\n".join(lines))


def semicolons(root: Path) -> Path:
    images(root)
    lines = [";".join(["path", *NAMES, "split"])]
    for name, labels in LABELS.items():
        cells = [f"{int(n in labels)},0" for n in NAMES]
        lines.append(";".join([name, *cells, SIDES[name]]))
    return put(root / "labels.csv", "\ufeff" + "\r\n".join(lines) + "\r\n")


def open_images(root: Path) -> Path:
    images(root / "train")
    lines = ["ImageID,Source,LabelName,Confidence"]
    for name, labels in LABELS.items():
        for label in NAMES:
            lines.append(f"{name[:1]},verification,{label},{int(label in labels)}")
    return put(root / "labels.csv", "\n".join(lines))


EVERY: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "Label Studio JSON": (label_studio_json, False),
    "Label Studio local files": (label_studio_local_files, False),
    "Label Studio JSON-MIN": (label_studio_min, False),
    "Label Studio CSV": (label_studio_csv, False),
    "CVAT": (cvat, False),
    "CVAT project": (cvat_project, True),
    "Datumaro": (datumaro, True),
    "Roboflow": (roboflow, True),
    "VOC": (voc, True),
    "VOC lists of classes": (voc_class_lists, True),
    "VOC next to images": (voc_beside, False),
    "imagefolder csv": (imagefolder_csv, False),
    "imagefolder jsonl": (imagefolder_jsonl, True),
    "FiftyOne samples": (fiftyone_samples, True),
    "FiftyOne classification": (fiftyone_labels, False),
    "tsv": (tsv, True),
    "semicolons": (semicolons, True),
    "Open Images": (open_images, False),
}
"""What writes each format, and whether it has a split."""
