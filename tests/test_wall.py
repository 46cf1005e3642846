"""The wall: what a device installs must work with nothing but what a device installs."""

from __future__ import annotations

import ast
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgeml
import edgeml_export
from tests.heavy import HEAVY

DOOR = re.compile(
    r"edgeml\.(training(?!\.config)|network(?!\.args)|report)(\..+)?|edgeml\.runtimes\.(ort\w*|ov|torch_)"
    r"|edgeml\.runtimes\.tensorrt\.runtime|.*\.(\w*page|plots)|edgeml_export\.(\w+\.)?to_\w+"
)


def run(code: str, *blocked: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a child in which `blocked` cannot be imported, installed or not."""
    block = f"import sys; sys.modules.update(dict.fromkeys({list(blocked)!r}))\n"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", block + code], env=env, capture_output=True, text=True, timeout=60
    )


def modules() -> list[str]:
    return [
        module.name
        for package in (edgeml, edgeml_export)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    ]


def light_modules() -> list[str]:
    return [name for name in modules() if not DOOR.fullmatch(name)]


def test_light_modules_import_with_every_heavy_library_absent() -> None:
    light = light_modules()
    assert {"edgeml.predict.predictor", "edgeml_export.pipeline"} <= set(light)
    done = run(f"import importlib\nfor name in {light!r}: importlib.import_module(name)", *HEAVY)
    assert done.returncode == 0, done.stderr


def test_importing_edgeml_loads_no_runtime_and_no_torch() -> None:
    done = run(f"import edgeml, sys; print([m for m in {HEAVY!r} if sys.modules.get(m)])")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_runtime_that_is_absent_is_named_with_its_extra(tiny_onnx: str) -> None:
    done = run(f"import edgeml; edgeml.Predictor({str(tiny_onnx)!r})", *HEAVY)
    assert "MissingDependencyError" in done.stderr
    assert "pip install 'edgeml[onnx]'" in done.stderr


def test_the_command_says_in_one_line_which_extra_is_missing() -> None:
    done = run(
        "sys.argv = 'edgeml train data'.split()\nfrom edgeml.cli import main; main()", *HEAVY
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'edgeml[train]'" in done.stderr


def test_help_works_with_every_heavy_library_absent() -> None:
    done = run("sys.argv = ['edgeml', '--help']\nfrom edgeml.cli import main; main()", *HEAVY)
    assert done.returncode == 0, done.stderr
    assert "export" in done.stdout


def test_runtimes_are_imported_without_their_telemetry_only() -> None:
    bare = []
    for module in modules():
        source = importlib.util.find_spec(module).origin  # type: ignore[union-attr]
        tree = ast.parse(Path(source or "").read_text(encoding="utf-8"))
        guarded = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.With)
            and any("without_telemetry" in ast.unparse(item) for item in block.items)
            for node in block.body
        }
        bare += [
            f"{module}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in guarded
            if re.match(r"(import|from) (onnxruntime|openvino)\b", ast.unparse(node))
        ]
    assert not bare


def test_telemetry_is_off_before_onnx_runtime_loads(tiny_onnx: str) -> None:
    pytest.importorskip("onnxruntime")
    done = run(
        f"import edgeml, os; edgeml.Predictor({str(tiny_onnx)!r}); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert done.stdout.strip() == "1", done.stderr


def test_importing_edgeml_changes_no_environment_and_shows_public_names_only() -> None:
    done = run(
        "import os, cv2; before = dict(os.environ); import edgeml; "
        "print(dict(os.environ) == before, *dir(edgeml))"
    )
    assert done.stdout.split() == ["True", *sorted(edgeml.__all__)], done.stderr
