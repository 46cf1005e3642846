"""DOOR torch: runs a training checkpoint, the reference that exports are compared with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError
from edgeml.network.checkpoint import load_checkpoint
from edgeml.runtimes.protocol import check_batch, check_process
from edgeml.spec.storage import spec_metadata


class TorchRuntime:
    """A PyTorch module in evaluation mode. `run` may be called from several threads at once.

    Attributes:
        name: The library, its version and the device.
        input_shape: Any batch of images of the spec's size.
        metadata: The spec in the checkpoint, and the precision.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        """Load a run folder or its .safetensors.

        Raises:
            InputError: PyTorch has no such device here.
            ModelLoadError: The checkpoint cannot be read or its model not built.
        """
        module, spec = load_checkpoint(path)
        self._device = "cpu" if device == "auto" else device
        try:
            self._module: torch.nn.Module | None = module.to(self._device)
        except (RuntimeError, AssertionError) as err:
            raise InputError(f"PyTorch has no device {device!r} here.") from err
        if threads:
            torch.set_num_threads(threads)
        self._process = os.getpid()
        self.name = f"torch {torch.__version__} {self._device.upper()}"
        self.input_shape = (None, 3, *spec.preprocess.size)
        self.metadata = {**spec_metadata(spec), "precision": "f32"}

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch (N, 3, H, W) to logits (N, labels) float32.

        Raises:
            InputError: The batch does not fit the model.
            InferenceError: The runtime is closed, or it was opened before a fork.
        """
        module = self._module  # another thread may close it meanwhile
        if module is None:
            raise InferenceError("This model is closed; open it again.")
        check_process(self._process, "PyTorch")
        check_batch(batch, self.input_shape, "float32")
        with torch.inference_mode():
            logits = module(torch.from_numpy(batch).to(self._device))
        return np.asarray(logits.float().cpu(), np.float32)

    def close(self) -> None:
        """Free the module."""
        self._module = None
