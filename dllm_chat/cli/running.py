"""One command from its arguments to its exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence

from typer.exceptions import Abort, TyperException
from typer.main import get_command

from dllm_chat.cli.app import app
from dllm_chat.cli.command import Mode
from dllm_chat.cli.failures import INTERRUPTED, failure_of, internal_failure, usage_failure
from dllm_chat.cli.output import Failure, Report, let_go_of_stdout, prepare, write_failure, write_report
from dllm_protocol.errors import DllmError

PROGRAM = "dllm"


def run_command(arguments: Sequence[str]) -> int:
    """Run ``dllm ARGUMENTS``; returns the exit code. Exactly one envelope goes to stdout under --json."""
    # Known before parsing, because what is wrong with the arguments is said in the form that was asked for.
    Mode.as_json = "--json" in _options(arguments)
    os.umask(0o077)
    prepare()
    try:
        return _finish(_outcome(arguments))
    except BrokenPipeError:
        let_go_of_stdout()
        return 1


def _outcome(arguments: Sequence[str]) -> Report | Failure | int:
    try:
        result = get_command(app).main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except DllmError as error:
        return failure_of(error)
    except TyperException as error:
        message = error.format_message()
        if error.exit_code != 2:
            return internal_failure(error)
        if not Mode.as_json and "\n" in message:
            return usage_failure("a command is missing", message)
        return usage_failure(
            message.splitlines()[0].rstrip(".") if message else "a command is missing", _help(error)
        )
    except (Abort, EOFError):
        return Failure("E_DECLINED", 9, "nothing was answered")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the outermost frame: a fault becomes an envelope and a log entry
        return internal_failure(error)
    if result == INTERRUPTED.exit_code:
        return INTERRUPTED
    return result if isinstance(result, Report | int) else Report()


def _finish(outcome: Report | Failure | int) -> int:
    if isinstance(outcome, int):
        return outcome
    if isinstance(outcome, Failure):
        write_failure(outcome, as_json=Mode.as_json)
    else:
        write_report(outcome, as_json=Mode.as_json)
    return outcome.exit_code


def _options(arguments: Sequence[str]) -> Sequence[str]:
    """Arguments before ``--``."""
    listed = list(arguments)
    return listed[: listed.index("--")] if "--" in listed else listed


def _help(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return (
        f"{context.command_path} --help shows how" if context is not None else f"{PROGRAM} --help shows how"
    )
