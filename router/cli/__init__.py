"""The command `router`.

Exit codes: 0 done, 1 refused or a negative answer, 2 wrong usage or input, 3 a server cannot be reached, 4 a fault of
this program or the fleet, 130 interrupted. Results go to standard output, everything else to standard error.

Every module here imports what its commands need inside them, so that `router --help` is quick.
"""

import logging
import sys
import traceback

import typer

from router.cli.shared.exits import Exit, exit_code_of
from router.redaction import redacted

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit."""
    from router.cli.commands import build

    # Commands print their own messages; pods and workers set up logging themselves.
    logging.getLogger("router").addHandler(logging.NullHandler())
    try:
        _must_be_text(sys.argv[1:])
        sys.exit(build()(prog_name="router", standalone_mode=False))
    except typer.TyperException as wrong:
        _print_usage(wrong)
        sys.exit(Exit.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(Exit.INTERRUPTED)
    except SystemExit as end:
        # The reader (head, less) has closed the pipe. That is success; typer would exit with 1.
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(Exit.OK)
        raise
    except Exception as error:  # the outermost frame: expected faults get a message, the rest is a bug
        code, text = exit_code_of(error)
        sys.stderr.write(text + "\n")
        if code is Exit.INTERNAL:
            sys.stderr.write(redacted("".join(traceback.format_exception(error))))
        sys.exit(code)


def _must_be_text(arguments: list[str]) -> None:
    """Refuse arguments that are not UTF-8: their surrogates cannot be encoded.

    :raises typer.BadParameter: an argument is not UTF-8.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as e:
            raise typer.BadParameter(f"{argument!r} is not UTF-8") from e


def _print_usage(wrong: typer.TyperException) -> None:
    """Print one line; nothing if a command group has just shown its help."""
    context = getattr(wrong, "ctx", None)
    text = wrong.format_message().strip().rstrip(".")
    if text:
        where = context.command_path if context is not None else "router"
        sys.stderr.write(f"error: {text} (see `{where} --help`)\n")
