"""The command `annotate` and its subcommands."""

from __future__ import annotations

import sys

import click

from engine.cli.exits import STOPPED, WRONG_USAGE
from engine.cli.run import run_command
from engine.vocabulary.errors import EngineError, RunStopped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="annotation-engine", prog_name="annotate")
def annotate() -> None:
    """Label large corpora with LLMs: several inputs in one call, nothing lost, nothing mislabelled."""


annotate.add_command(run_command)


def main() -> None:
    """The entry point: a user's mistake is one clear line and an exit code, never a stack trace."""
    try:
        sys.exit(annotate.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        _say("interrupted")
        sys.exit(STOPPED)
    except click.ClickException as error:
        error.show()
        sys.exit(WRONG_USAGE)
    except RunStopped as error:
        _say(str(error))
        sys.exit(STOPPED)
    except EngineError as error:
        _say(str(error))
        sys.exit(WRONG_USAGE)


def _say(text: str) -> None:
    click.echo(f"annotate: {text}", err=True)


if __name__ == "__main__":
    main()
