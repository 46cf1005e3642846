"""Images of two labels for exports; imports are late, because the light tier has no runtimes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgeml.data import Dataset


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    from edgeml.data import read_dataset
    from tests.field.nets import two_folders

    return read_dataset(two_folders(tmp_path_factory.mktemp("images") / "data"))


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip timing INT8 against FP32, which takes seconds."""
    monkeypatch.setattr("edgeml_export.pipeline.measure_speed", lambda *_: None)
