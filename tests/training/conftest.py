"""What all tests of training share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """PyTorch's threads wait for each other: beside other work, two are far slower than one."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
