"""Fixtures that all tests of training share."""

from __future__ import annotations

import sys

import pytest

from edgeml.data import Dataset
from tests.training.shapes import draw_shapes


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread of PyTorch: on a busy machine, two wait for each other and are far slower."""
    if torch := sys.modules.get("torch"):  # the tests of reports and settings do not import it
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report: drawing it takes four fifths of the time of a short training."""
    monkeypatch.setattr("edgeml.training.finish.train_report", lambda training, out: None)
