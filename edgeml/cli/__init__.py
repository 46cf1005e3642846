"""The `edgeml` command: one file per command, options and one call each.

Results go to stdout, progress and notes to stderr. Exit status: 0 done, 1 a check failed, 2 bad
input. Function bodies import what they need, so that `--help` is fast.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from edgeml.cli import (
    bench,
    compare,
    data,
    demo,
    doctor,
    eval,
    export,
    inspect,
    predict,
    stream,
    train,
    verify,
)
from edgeml.errors import EdgemlError, InputError

_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "train": train.train,
    "eval": eval.evaluate,
    "export": export.export,
    "compare": compare.compare,
    "verify": verify.verify,
    "predict": predict.predict,
    "bench": bench.bench,
    "stream": stream.stream,
    "inspect": inspect.inspect,
    "doctor": doctor.doctor,
}


class _Commands(typer.core.TyperGroup):
    """Builds the options of a command only when it is called: all of them take 100 ms."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in _COMMANDS:
            callback = _COMMANDS[name]
            if name == "train":
                from edgeml.cli._flags import with_settings

                callback = with_settings(callback)
            single = typer.Typer(add_completion=False)
            single.command(name)(callback)
            command = typer.main.get_command(single)
        return name, command, rest


app = typer.Typer(
    name="edgeml",
    cls=_Commands,
    help="From a folder of labelled images to a verified classifier on an edge device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"edgeml {version('edgeml')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """From a folder of labelled images to a verified classifier on an edge device."""


for _name, _callback in _COMMANDS.items():  # `_Commands` replaces the body, which only has a help
    app.command(_name, help=_callback.__doc__)(lambda: None)
app.add_typer(data.app)


# What shells report for a program that SIGINT ended.
_INTERRUPTED = 130

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What is no path though it stands where one belongs; only `stream` reads addresses.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*):(//|[a-z]+/[a-z0-9+.-]+[;,])", re.IGNORECASE)

# A name of a file has 255 bytes at most; more is a data: URI, which may be as long as an image.
_TOO_LONG = re.compile(r"\S{300,}")


def main() -> None:
    """Run the command; print an error that the user can fix as one line, not as a traceback."""
    _prepare_streams()
    try:
        _check_words(sys.argv[1:])
        status = app(standalone_mode=False)
        sys.stdout.flush()
        if status == _INTERRUPTED:  # typer turns Ctrl-C into a silent exit with this status
            _print_error("Stopped.", _INTERRUPTED)
    except EdgemlError as err:
        status = _print_error(err, err.exit_status)
    except typer.TyperException as err:
        status = _print_error(err, 2)
    except typer.Abort:
        status = _print_error("Stopped.", _INTERRUPTED)
    except (BrokenPipeError, SystemExit) as err:
        # typer exits with 1 for a broken pipe, but the reader, such as head, has read enough.
        if isinstance(err, SystemExit) and not isinstance(err.__context__, BrokenPipeError):
            raise
        status = _discard_stdout(0)
    except OSError as err:
        if err.filename is not None:
            status = _print_error(f"Cannot use {_filename(err)!r}: {err.strerror}.", 2)
        else:
            what = "write the results" if err.errno in _DISK_FULL else "read or write a file"
            status = _print_error(f"Cannot {what}: {err.strerror or err}.", 2)
            _discard_stdout(status)
    raise SystemExit(status)


def _filename(err: OSError) -> str:
    name = err.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else str(name)


def _prepare_streams() -> None:
    """Let stdout and stderr be closed, and write names that are no text as their bytes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def _check_words(words: Sequence[str]) -> None:
    """Refuse what cannot be a path."""
    for word in words:
        if "\0" in word:
            raise InputError(f"{word!r} contains a NUL, which no name of a file does.")
        found = _ADDRESS.match(word)
        is_data = found and found[1].lower() == "data"
        if found and (is_data or words[0] != "stream") and not os.path.lexists(word[:255]):
            kind = "a data: URI" if is_data else "an address"
            raise InputError(f"{word!r} is {kind}; files and folders are read. Download it first.")


def _discard_stdout(status: int) -> int:
    """Send buffered output to the null device: Python would fail to flush it at exit."""
    with suppress(io.UnsupportedOperation):  # it is not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _print_error(error: object, status: int) -> int:
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    text = text.encode("utf-8", "backslashreplace").decode()  # names of files that are no text
    text = _TOO_LONG.sub(lambda found: f"{found[0][:60]}...{found[0][-20:]}", text)
    if text:  # a command group without a command prints its help, and no error
        typer.secho(f"edgeml: {' '.join(text.split())}", fg="red", err=True)
    return status
