"""The structure that ARCHITECTURE.md describes: no import cycles, small files and functions.

import-linter holds the layers between packages. It cannot see cycles inside a package, so these
tests read every import, lazy and type-only ones included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"edgeml": ROOT / "edgeml", "edgeml_export": ROOT / "export" / "edgeml_export"}
TOP_LEVEL_ENTRIES, TOP_LEVEL_FILES = 20, 5
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 60


def read_modules(packages: Mapping[str, Path]) -> dict[str, Path]:
    """Map the dotted name of every module to its file."""
    modules = {}
    for package, folder in packages.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            modules[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return modules


def imports_of(path: Path, modules: Mapping[str, Path]) -> set[str]:
    """Return the modules of ours that a file imports, anywhere in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                imported.add(submodule if submodule in modules else node.module or "")
    return imported & modules.keys()


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the modules of each cycle: what remains when leaves and roots are stripped."""
    remaining = {name: set(targets) - {name} for name, targets in graph.items()}
    while True:
        imported = set().union(*remaining.values()) if remaining else set()
        removable = {n for n, targets in remaining.items() if not targets or n not in imported}
        if not removable:
            return [sorted(remaining)] if remaining else []
        remaining = {
            name: targets - removable
            for name, targets in remaining.items()
            if name not in removable
        }


def import_graph(packages: Mapping[str, Path]) -> dict[str, set[str]]:
    modules = read_modules(packages)
    return {name: imports_of(path, modules) for name, path in modules.items()}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, path in read_modules(PACKAGES).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{name}.{node.name}", node


def test_no_module_imports_another_in_a_cycle() -> None:
    assert cycles(import_graph(PACKAGES)) == []


def test_a_planted_cycle_of_lazy_and_type_only_imports_is_found(tmp_path: Path) -> None:
    sources = {
        "__init__": "",
        "a": "def f() -> None:\n    from p import b\n",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.c import C\n",
        "c": "import p.a\nclass C: ...\n",
        "leaf": "from p import a\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    assert cycles(import_graph({"p": tmp_path})) == [["p.a", "p.b", "p.c"]]


def test_the_top_level_of_the_package_is_a_table_of_contents() -> None:
    entries = [path for path in (ROOT / "edgeml").iterdir() if path.name != "__pycache__"]
    files = [path for path in entries if path.suffix == ".py"]
    assert (len(entries) <= TOP_LEVEL_ENTRIES, len(files) <= TOP_LEVEL_FILES) == (True, True)


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in read_modules(PACKAGES).items()
    }
    assert {n: length for n, length in lengths.items() if length > LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert {n: length for n, length in lengths.items() if length > LINES_OF_A_FUNCTION} == {}
