"""The libraries that a device does not need, or only one of: their doors alone import them."""

RUNTIMES_AND_TORCH = (
    "torch", "torchvision", "timm", "safetensors", "onnx", "onnxruntime", "onnxscript",
    "onnxslim", "openvino", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda",
)  # fmt: skip

REPORTS = ("matplotlib", "jinja2", "markupsafe")

HEAVY = (
    *RUNTIMES_AND_TORCH, *REPORTS, "sklearn", "pyarrow", "yaml", "kagglehub",
)  # fmt: skip
