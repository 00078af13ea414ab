"""The command `annotate` and its subcommands."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import click

from engine.cli.bench import bench_command
from engine.cli.console import UNWRITABLE, silence_stdout
from engine.cli.exits import ALL_ANNOTATED, BUG, STOPPED, WRONG_USAGE
from engine.cli.export import export_command
from engine.cli.init import init_command
from engine.cli.plan import plan_command
from engine.cli.report import report_command
from engine.cli.retry import retry_command
from engine.cli.run import run_command
from engine.cli.salvage import salvage_command
from engine.cli.show import show_command
from engine.cli.simulate import simulate_command
from engine.cli.tune import tune_command
from engine.vocabulary.errors import EngineError, RunStopped

_SENDING = ("run", "retry", "bench", "tune")


class _Annotate(click.Group):
    """A group that ends with our exit codes, and tells every user's mistake in one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit. The arguments are kept, to be shown in "go on with"."""
        words = list(sys.argv[1:] if args is None else args)
        run = super().main
        code = _exit_code(
            lambda: run(words, "annotate", complete_var, standalone_mode=False, obj=words, **extra), _unwritten(words)
        )
        sys.exit(_flushed(code, _unwritten(words)))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand. It may find that nobody reads its output any more, which is not its fault."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence_stdout()
            return ALL_ANNOTATED


@click.group(cls=_Annotate, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="annotation-engine", prog_name="annotate")
def annotate() -> None:
    """Label large corpora with LLMs: several inputs in one call, nothing lost, nothing mislabelled."""


for _command in (
    run_command,
    show_command,
    export_command,
    retry_command,
    salvage_command,
    report_command,
    plan_command,
    tune_command,
    init_command,
    bench_command,
    simulate_command,
):
    annotate.add_command(_command)


def main() -> None:
    """The entry point. Once the command has ended, its exit code stands: a late Ctrl-C ends nothing."""
    try:
        annotate.main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _exit_code(command: Callable[[], Any], unwritten: int) -> int:
    """A user's mistake is one clear line and an exit code; only a bug shows its trace.

    :param unwritten: the code where standard output, or standard error, cannot be written.
    """
    try:
        return command() or ALL_ANNOTATED
    except click.exceptions.Abort:
        _say("interrupted")
        return STOPPED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return WRONG_USAGE
    except click.ClickException as error:
        _say(_usage(error))
        return WRONG_USAGE
    except RunStopped as error:
        _say(str(error))
        return STOPPED
    except EngineError as error:
        _say(str(error))
        return WRONG_USAGE
    except Exception as error:  # noqa: BLE001 - the last resort
        if _is_unwritable(error):
            return _told_unwritten(error, unwritten)
        traceback.print_exc()
        _say("this is a bug in annotation-engine, and what was answered is kept. Please report the lines above")
        return BUG


def _usage(error: click.ClickException) -> str:
    """One line, with the way to the help."""
    message = error.format_message().removesuffix(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message}; see {context.command_path} --help"


def _say(text: str) -> None:
    with suppress(OSError):  # the exit code says it all the same
        click.echo(f"annotate: {text}", err=True)


# -- standard output that cannot be written ----------------------------------------------------------------------------


def _unwritten(words: Sequence[str]) -> int:
    """The exit code for it: that of a run that stopped, where something may have been sent."""
    sends = next((word for word in words if not word.startswith("-")), None) in _SENDING
    return STOPPED if sends and "--show-prompt" not in words else WRONG_USAGE


def _is_unwritable(error: BaseException) -> bool:
    """Whether click or rich raised it as they wrote to a stream. A file's that nobody put into words is a bug."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    writer = frames[-1].f_globals.get("__name__", "") if frames else ""
    return isinstance(error, OSError) and error.errno in UNWRITABLE and writer.startswith(("click.", "rich."))


def _told_unwritten(error: BaseException, code: int) -> int:
    """One line, and nothing left for the interpreter to flush and to complain of at its end."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    silence_stdout()
    _say(f"standard output cannot be written: {reason}")
    return code


def _flushed(code: int, unwritten: int) -> int:
    """Flush what the interpreter would flush at its end, with a trace and an exit code of its own."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
    except OSError as error:
        if code == ALL_ANNOTATED:
            return _told_unwritten(error, unwritten)
        silence_stdout()
    return code


if __name__ == "__main__":
    main()
