"""YAML files: parsed within limits, and without aliases, which may expand to any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeml.data.readers.rows import printable, read_text
from edgeml.errors import DataError, needs

_MAX_BYTES = 1 << 18
_MAX_DEPTH = 20


def load_yaml(file: Path) -> tuple[dict[Any, Any], dict[Any, int]]:
    """Read a .yaml; return its top level, and the line of each key there."""
    with needs("yaml", extra="train", to=f"read {printable(file.name)}"):
        import yaml

    text = read_text(file, limit=_MAX_BYTES)
    try:
        # By repeating aliases, a short file may expand to any size.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
                deep = depth > _MAX_DEPTH
                what = "it is nested too deeply" if deep else "aliases are not allowed"
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise DataError(f"{printable(file.name)}, line {line}: {what}.")
        lines = _lines_of_keys(yaml.compose(text, Loader=yaml.SafeLoader), file)
        document = yaml.safe_load(text)
    except DataError:
        raise
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        raise DataError(f"{printable(file.name)}, line {line}: {err.problem or err}.") from err
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as err:
        message = " ".join(str(err).split())[:200]
        raise DataError(f"{printable(file)!r} cannot be read as YAML: {message}") from err
    return document, lines


def _lines_of_keys(node: Any, file: Path) -> dict[Any, int]:
    """Return the line of each key of the top level.

    Duplicate keys there and one level below are refused: YAML would use the last of them.
    """
    if getattr(node, "id", None) != "mapping":
        raise DataError(f"{printable(file.name)}, line 1: expected keys such as names and train.")
    for mapping in (node, *(value for _, value in node.value if value.id == "mapping")):
        seen = set()
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.value in seen:
                what = "is duplicated" if key.id == "scalar" else "is not a key"
                raise DataError(
                    f"{printable(file.name)}, line {line}: {str(key.value)[:80]!r} {what}."
                )
            seen.add(key.value)
    return {key.value: key.start_mark.line + 1 for key, _ in node.value}
