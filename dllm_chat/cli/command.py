"""From an async function to a command: adds --json, runs it, hands its report to the entry point."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ParamSpec

import typer

from dllm_chat.cli.output import Report

P = ParamSpec("P")
Work = Callable[P, Report] | Callable[P, Coroutine[Any, Any, Report]]


class Mode:
    """How this run speaks. One run, one process."""

    as_json = False


def choose_json(asked: bool) -> bool:
    """Callback of ``--json``, which stands before or behind the command's name."""
    Mode.as_json = Mode.as_json or asked
    return asked


AsJson = Annotated[
    bool,
    typer.Option(
        "--json", callback=choose_json, is_eager=True, help="Print one JSON object and nothing else."
    ),
]


def single() -> typer.Typer:
    """Home of one command that is called without a second word."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def group(examples: str) -> typer.Typer:
    """A group of commands, which takes --json too."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=examples,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def of_group(as_json: AsJson = False) -> None:
        pass

    return app


def command(app: typer.Typer, name: str) -> Callable[[Work[P]], Work[P]]:
    """Register a function as the command ``name``; its docstring is the help text.

    The function returns its `Report`; what goes wrong it raises.
    """

    def register(work: Work[P]) -> Work[P]:
        signature = inspect.signature(work, eval_str=True)
        json_option = inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson
        )

        @functools.wraps(work)
        def call(*args: Any, as_json: bool = False, **kwargs: Any) -> Report:
            result = work(*args, **kwargs)
            return result if isinstance(result, Report) else asyncio.run(result)

        parameters = [*signature.parameters.values(), json_option]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by typer
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})(
            call
        )
        return work

    return register
