"""`dllm ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command, single
from dllm_chat.cli.output import Report
from dllm_chat.cli.passwords import PasswordFd, PasswordFile
from dllm_chat.session.events import Sampling

app = single()
DEFAULTS = Sampling()


@command(app, "ask")
async def ask(
    prompt: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")] = "",
    model: Annotated[str | None, typer.Option("-m", "--model", help="A registered model.")] = None,
    system: Annotated[str, typer.Option(help="What the model should know or be beforehand.")] = "",
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Text to ask about; - is standard input.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 always picks the likeliest.")] = DEFAULTS.temperature,
    top_p: Annotated[
        float, typer.Option(help="Keep the likeliest that come to this share.")
    ] = DEFAULTS.top_p,
    top_k: Annotated[int, typer.Option(help="Keep this many.")] = DEFAULTS.top_k,
    min_p: Annotated[float, typer.Option(help="Keep what has this share of the likeliest.")] = DEFAULTS.min_p,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 discourages repeating.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The same as --temperature 0.")] = False,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; repeatable.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=1 << 20, help="Longest answer.")] = 512,
    max_cost: Annotated[str | None, typer.Option(help="Refuse a quote above this, in DLLM.")] = None,
    speculation: Annotated[
        bool | None,
        typer.Option("--speculation/--no-speculation", help="Ask for rows on a guess where that saves time."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A provider not to use; repeatable.")] = None,
    quote: Annotated[bool, typer.Option("--quote", help="Show what it may cost; lock nothing.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Agree to the quote beforehand.")] = False,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Ask a question; the answer streams to standard output.

    \b
      dllm ask "What is DLLM?"
      dllm ask "Summarise this" --file notes.txt
      git diff | dllm ask "Write a commit message" -f -
      dllm ask "Hello" --quote
      dllm ask "Hello" --json --max-cost 0.01

    Without a network joined, an embedded one of real parts starts on this machine and play money pays.
    Ctrl-C stops the answer: its text so far is yours, and paid.
    """
    from dllm_chat.cli.asking import Question, answer_question

    question = Question(
        prompt=prompt,
        file=file,
        system=system,
        model=model,
        sampling=Sampling(0.0 if greedy else temperature, top_p, top_k, min_p, repetition_penalty, seed),
        stop=tuple(stop or ()),
        max_tokens=max_tokens,
        max_cost=max_cost,
        exclude=tuple(exclude or ()),
        speculation=None if speculation is None else "on" if speculation else "off",
        quote_only=quote,
        yes=yes,
    )
    return await answer_question(question, password_file, password_fd)
