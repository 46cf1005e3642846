"""A spec in the metadata keys of OpenVINO's model_api, which can run our files."""

from __future__ import annotations

from statistics import median

from edgeml.spec.model_spec import ModelSpec


def model_info(spec: ModelSpec) -> dict[str, str]:
    """Return the spec in the keys that OpenVINO's model_api reads, as far as they can express it.

    There is one threshold for all labels, no groups, and a space in a name becomes `_` because
    labels are split at spaces: see model_api, docs/source/guides/model-configuration.md.
    openvino-model-api 0.4.7 returned the same scores for our files in float32 and uint8, RGB and
    BGR, .xml and .onnx, except for the bfloat16 that it lets a CPU use. It infers NHWC from the
    shape; `layout` is for older versions.
    The result is empty for a model with softmax groups, since model_api would return a sigmoid of
    their logits as a probability, and for an input that model_api cannot prepare.
    """
    resize = {"squash": "standard", "crop": "crop", "letterbox": "fit_to_window_letterbox"}
    preprocess = spec.preprocess
    if spec.softmax_groups() or spec.raw_channels != "bgr" or preprocess.resize not in resize:
        return {}
    info = {
        "model_type": "Classification",
        "task_type": "classification",
        "labels": " ".join("_".join(label.split()) for label in spec.labels),
        "multilabel": str(spec.task == "multilabel"),
        "confidence_threshold": f"{median(spec.thresholds):.4f}",
        "resize_type": resize[preprocess.resize],
        "pad_value": str(preprocess.pad),
    }
    if spec.input == "uint8":
        return {**info, "layout": "NHWC"}
    return {
        **info,
        "mean_values": " ".join(f"{255 * value:.6g}" for value in preprocess.mean),
        "scale_values": " ".join(f"{255 * value:.6g}" for value in preprocess.std),
        "reverse_input_channels": str(preprocess.channels == "rgb"),
    }
