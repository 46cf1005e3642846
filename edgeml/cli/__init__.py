"""The `edgeml` command: options and one call each; the work is done elsewhere.

Results go to stdout, progress and notes to stderr. Exit status: 0 done, 1 a check said no,
2 the input cannot be used. Bodies import what they need, so that `--help` stays quick.
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from edgeml.cli import data, deploy, machine, run, training
from edgeml.errors import EdgemlError

app = typer.Typer(
    name="edgeml",
    help="From a folder of labelled images to a verified classifier on an edge device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(machine.root)
app.command()(machine.demo)
app.add_typer(data.app)
app.command()(training.train)
app.command("eval")(training.evaluate)
app.command()(deploy.export)
app.command()(deploy.compare)
app.command()(deploy.verify)
app.command()(run.predict)
app.command()(run.bench)
app.command()(run.stream)
app.command()(deploy.inspect)
app.command()(machine.doctor)


# What shells report of a program that SIGINT ended.
_INTERRUPTED = 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """Run the command; show what a user can mend as one line, not as a traceback."""
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
        if status == _INTERRUPTED:  # typer makes Ctrl-C a silent exit of this status
            _say("Stopped.", _INTERRUPTED)
    except EdgemlError as err:
        status = _say(err, err.exit_status)
    except typer.TyperException as err:
        status = _say(err, 2)
    except typer.Abort:
        status = _say("Stopped.", _INTERRUPTED)
    except (BrokenPipeError, SystemExit) as err:
        # typer exits with 1 for a broken pipe; but the reader, `head` say, has what it wants.
        if isinstance(err, SystemExit) and not isinstance(err.__context__, BrokenPipeError):
            raise
        status = _give_up_stdout(0)
    except OSError as err:
        if err.errno not in _FULL:
            raise
        status = _give_up_stdout(_say(f"Cannot write the results: {err.strerror}.", 2))
    raise SystemExit(status)


def _give_up_stdout(status: int) -> int:
    """Send what is left elsewhere: Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _say(what: object, status: int) -> int:
    text = what.format_message() if isinstance(what, typer.TyperException) else str(what)
    if text:  # asking for a group of commands prints its help, and has nothing to add
        typer.secho(f"edgeml: {' '.join(text.split())}", fg="red", err=True)
    return status
