"""What a server can do, found by asking it a few known questions; and whether its tokens are those of the model file.

Asked once, when the engine starts. Whatever disagrees ends it there, by name, and not in the middle of somebody's
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from local_worker.engine import errors
from local_worker.remote_engine.answers import Completion, ListedModel, RemoteRow, read_models
from local_worker.remote_engine.asking import CLOSE, Asker, Tokenizer
from local_worker.remote_engine.dialect import Dialect
from local_worker.remote_engine.errors import (
    RemoteDisagrees,
    RemoteMalformed,
    RemoteRefused,
    RemoteTextUnclear,
    RemoteTokenUnclear,
    RemoteUnfit,
    quoted,
)
from local_worker.remote_engine.http import RemoteHttp
from local_worker.remote_engine.words import TOKEN_ID, Words

PROBES: Final = (
    "The capital of France is",
    "Once upon a time there was a little",
    "1, 2, 3, 4, 5, 6,",
    "def add(a, b):\n    return",
)
CONTINUED_ROWS: Final = 6
TOP_K_TRIED: Final = (128, 64, 40, 20, 10, 5, 1)
"""vLLM gives 20 unless told otherwise, OpenAI 5."""
_INSISTING = 100.0
_NO_LOGPROBS = (
    "llama_cpp.server wants --logits_all true; vLLM and llama-server give log-probabilities as they come"
)


async def examine(http: RemoteHttp, words: Words, tokenizer: Tokenizer) -> tuple[Asker, int | None]:
    """Find out how to talk to a server, and that it serves the model of the vocabulary.

    Returns:
        Whom to ask, and how many rows the server takes, where it says so.

    Raises:
        RemoteUnfit: naming what disagreed or is missing.
        Errors of `RemoteHttp` where it does not answer.
    """
    model = await _model(http)
    probes = await _probes(words, tokenizer)
    try:
        asker, probe, first = await _spoken(http, words, tokenizer, model.name, probes)
        asker.answering_model = first.model
        asker.dialect = replace(asker.dialect, names_ids=_names_ids(first))
        asker.dialect = replace(asker.dialect, max_top_k=await _most_logits(asker, probe))
        continued = _continuation(asker, probe, first)
        await _check_counts(asker, probes)
        await _check_forced(asker, probe, continued)
        asker.dialect = replace(asker.dialect, echo_offset=await _echo_offset(asker, probe))
        await _check_ends(asker, probe)
    except (RemoteDisagrees, RemoteTokenUnclear) as error:
        raise RemoteUnfit(error.message, hint=error.hint) from error
    return asker, model.context_rows


async def _model(http: RemoteHttp) -> ListedModel:
    """The model to ask for: the one named, or the only one that there is."""
    wanted = http.server.model
    try:
        listed = read_models(await http.get("/models"))
    except (RemoteRefused, RemoteMalformed):
        if wanted is None:
            raise
        return ListedModel(wanted, None)
    names = ", ".join(quoted(one.name) for one in listed[:8])
    if wanted is None:
        if len(listed) != 1:
            raise RemoteUnfit(
                f"the server lists {len(listed)} models: {names or 'none'}",
                hint="name one with --remote-model",
            )
        return listed[0]
    found = next((one for one in listed if one.name == wanted), None)
    if found is None:
        raise RemoteUnfit(f"the server has no model {quoted(wanted)}, it has {names or 'none'}")
    return found


async def _probes(words: Words, tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    begin = [words.vocabulary.bos] if words.vocabulary.adds_bos else []
    return [(text, [*begin, *await tokenizer.tokenize(text)]) for text in PROBES]


async def _spoken(
    http: RemoteHttp, words: Words, tokenizer: Tokenizer, model: str, probes: list[tuple[str, list[int]]]
) -> tuple[Asker, list[int], Completion]:
    """The first dialect in which the server gives rows, the probe that it went on from, and how."""
    refusal = "it gave no rows"
    for takes_ids in (True, False):
        for extended in (True, False):
            asker = Asker(http, words, tokenizer, Dialect(model, takes_ids, extended))
            for _, ids in probes:
                try:
                    found = await asker.complete(await asker.prompt(ids), max_tokens=CONTINUED_ROWS, top_k=5)
                except (RemoteRefused, RemoteMalformed) as error:
                    refusal = error.message
                    break
                if len(found.rows) == CONTINUED_ROWS and None not in found.rows:
                    return asker, ids, found
                if found.text and not found.rows:
                    raise RemoteUnfit("the server answers without log-probabilities", hint=_NO_LOGPROBS)
                refusal = f"of {CONTINUED_ROWS} rows it gave {len(found.rows)}"
    raise RemoteUnfit(f"the server takes no completions as they are needed: {refusal}", hint=_NO_LOGPROBS)


def _names_ids(found: Completion) -> bool:
    names = [row.chosen for row in found.rows if row is not None]
    return all(name.id is not None or TOKEN_ID.fullmatch(name.text) for name in names)


async def _most_logits(asker: Asker, probe: list[int]) -> int:
    """The most logits of a row that the server gives when asked for many."""
    prompt = await asker.prompt(probe)
    for top_k in TOP_K_TRIED:
        try:
            row = _only(await asker.complete(prompt, max_tokens=1, top_k=top_k))
        except (RemoteRefused, RemoteMalformed):
            continue
        # Servers that name tokens by text fold some together; those that cut the list give far fewer.
        if len(row.top) >= min(top_k, asker.words.size) * 3 // 4:
            return top_k
    raise RemoteUnfit("the server gives no log-probabilities of a row's likeliest tokens", hint=_NO_LOGPROBS)


def _only(found: Completion) -> RemoteRow:
    row = found.rows[0] if found.rows else None
    if row is None or not row.top:
        raise RemoteMalformed("the server gave no row where one was asked for")
    return row


def _continuation(asker: Asker, probe: list[int], found: Completion) -> list[int]:
    """The server's own tokens after a probe: known here, spelled as it spells them, and the likeliest of their rows."""
    ids: list[int] = []
    for row in found.rows:
        if row is None:
            raise RemoteMalformed("the server says nothing of a token that it made")
        chosen = asker.words.id_of(row.chosen)
        if chosen is None:
            raise RemoteUnfit(
                f"the server's token {quoted(row.chosen.text)} is none of the model file's alone"
            )
        best = asker.words.output(row, len(probe) + len(ids) - 1, 2)
        if chosen not in best.ids.tolist() and not asker.words.end_ids.intersection(best.ids.tolist()):
            raise RemoteUnfit(
                f"the server goes on with token {chosen}, its likeliest are {best.ids.tolist()}: "
                "these are not the model's own probabilities",
                hint="switch off penalties and samplers at the server",
            )
        ids.append(chosen)
    spelled = asker.words.spelled(ids).decode(errors="ignore")
    if _plain(found.text) != _plain(spelled) and _plain(found.text) != _plain(asker.words.marked(ids) or ""):
        raise RemoteUnfit(
            f"the server's tokens {ids} spell {quoted(spelled)} by the model file, and {quoted(found.text)} there",
            hint="give the file of the model that the server runs",
        )
    return ids


def _plain(text: str) -> str:
    """A text without what servers treat each in their way: space at its ends, halves of characters."""
    return text.replace("\N{REPLACEMENT CHARACTER}", "").strip()


async def _check_counts(asker: Asker, probes: list[tuple[str, list[int]]]) -> None:
    """Both tokenizers must find as many tokens in a text, where the server says how many it found.

    Where prompts go as ids the server's own begin token is of no account.
    """
    slack = 1 if asker.dialect.takes_ids else 0
    for text, ids in probes:
        try:
            found = await asker.complete(text, max_tokens=1, top_k=1)
        except RemoteRefused:
            return  # It takes ids only.
        if found.prompt_rows is not None and abs(found.prompt_rows - len(ids)) > slack:
            raise RemoteUnfit(
                f"{quoted(text)} is {len(ids)} tokens by the model file and {found.prompt_rows} by the server",
                hint="give the file of the model that the server runs",
            )


async def _check_forced(asker: Asker, probe: list[int], continued: Sequence[int]) -> None:
    """Given its own tokens back as a prompt, the server must go on as it did: so it takes tokens for what it gives."""
    for half in range(1, len(continued)):
        prompt = [*probe, *continued[:half]]
        try:
            words = await asker.prompt(prompt)
            break
        except RemoteTextUnclear:
            continue  # The server's own tokens are not those that a tokenizer makes of their text.
    else:
        raise RemoteUnfit("the server's own words, given back to it as text, are other tokens")
    row = _only(await asker.complete(words, max_tokens=1, top_k=5))
    best = asker.words.output(row, len(prompt) - 1, 5)
    likely = {token: float(value) for token, value in zip(best.ids.tolist(), best.logits, strict=True)}
    expected = continued[half]
    if likely.get(expected, -100.0) < max(likely.values()) - CLOSE:
        raise RemoteUnfit(
            f"after {len(prompt)} tokens the server went on with token {expected}; given the same tokens as a prompt, "
            f"with {best.ids.tolist()[0]}",
            hint="give the file of the model that the server runs",
        )


async def _echo_offset(asker: Asker, probe: list[int]) -> int | None:
    """Where an echo has the row after the prompt's last token; servers count the begin token or do not."""
    end = min(asker.words.end_ids, default=None)
    if end is None:
        return None
    wanted = _only(await asker.complete(await asker.prompt(probe), max_tokens=1, top_k=5))
    try:
        found = await asker.complete(await asker.prompt([*probe, end]), max_tokens=1, top_k=5, echo=True)
    except (RemoteRefused, errors.DecodeFailed):
        return None
    for offset in (0, -1):
        index = len(probe) + offset
        row = found.rows[index] if index < len(found.rows) else None
        if row is not None and _alike(row, wanted):
            return offset
    return None


def _alike(one: RemoteRow, other: RemoteRow) -> bool:
    mine = {(name.id, name.text): value for name, value in one.top}
    theirs = {
        (name.id, name.text): value for name, value in other.top[:3] if name.text or name.id is not None
    }
    near = [abs(mine.get(key, -100.0) - value) < CLOSE for key, value in theirs.items()]
    return bool(near) and all(near)


async def _check_ends(asker: Asker, probe: list[int]) -> None:
    """Where the model ends its answer the client must see it: as a row like any other, or in an echo."""
    if asker.dialect.echo_offset is not None or not asker.words.end_ids:
        return
    prompt = await asker.prompt(probe)
    end = min(asker.words.end_ids)
    try:
        found = await asker.complete(prompt, max_tokens=2, top_k=5, bias={end: _INSISTING})
    except RemoteRefused:
        found = None
    if found is None or not found.rows or not asker.dialect.names_ids:
        raise RemoteUnfit(
            "the server shows no row where the model ends its answer: it has no echo with log-probabilities, "
            "and leaves the end token out",
            hint="serve from vLLM, llama-server or llama_cpp.server",
        )
