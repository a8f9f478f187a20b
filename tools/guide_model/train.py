"""Trains the guide model and writes its GGUF: ``python -m tools.guide_model.train``.

Needs tools/guide_model/requirements.txt. The same seed on the same machine gives the same weights; the number of steps,
not the clock, ends it.
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from tools.guide_model.config import BUILD_DIR, MODEL_FILE, SCHEDULE, SEED, SHAPE, Schedule
from tools.guide_model.dialogues import Corpus
from tools.guide_model.export import write_gguf
from tools.guide_model.model import Params, forward, init_params
from tools.guide_model.optimiser import State, apply, initial_state, schedule_factor
from tools.guide_model.overlap import Heldout
from tools.guide_model.rows import LANGUAGE, Batch, batches
from tools.guide_model.tokenizer import IM_END, IM_START, Tokenizer, learn_pieces

_LEARNING_DIALOGUES = 12_000
_KEEP_EVERY = 50
_STATE_FILE = BUILD_DIR / "state.npz"
_BEFORE_CHAT_FILE = BUILD_DIR / "before_chat.npz"


def make_tokenizer(corpus: Corpus) -> Tokenizer:
    """The tokenizer of this corpus: learned on sampled questions and every answer."""
    texts = [intent.answer for intent in corpus.intents] * 10
    for dialogue in itertools.islice(
        corpus.dialogues(SEED + 1, 0.15, 0.2, LANGUAGE.turn_counts), _LEARNING_DIALOGUES
    ):
        texts.extend(question for question, _ in dialogue.turns)
    texts.extend(["user\nassistant\nsystem\n"] * 100)
    return Tokenizer(learn_pieces(texts, SHAPE.vocab))


jax.tree_util.register_dataclass(Batch, ["tokens", "positions", "segments", "weights"], [])


def loss_of(params: Params, batch: Batch) -> jax.Array:
    """Mean cross-entropy in nats over weighted tokens."""
    logits = forward(params, SHAPE, batch.tokens, batch.positions, batch.segments)[:, :-1]
    targets, weights = batch.tokens[:, 1:], batch.weights[:, 1:]
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = (jax.nn.logsumexp(logits, axis=-1) - picked) * weights
    return loss.sum() / weights.sum()


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    schedule: Schedule, state: State, batch: Batch, factor: jax.Array, count: jax.Array
) -> tuple[State, jax.Array]:
    """One batch: the new state, and the loss before it."""
    loss, grads = jax.value_and_grad(loss_of)(state[0], batch)
    return apply(state, grads, schedule, factor, count), loss


def train(corpus: Corpus, late: Corpus, tokenizer: Tokenizer, schedule: Schedule, resume: bool) -> Params:
    """Train from random weights, or on from where a run was broken off, and return the averaged weights."""
    stream = batches(corpus, late, tokenizer, schedule, SEED)
    state, first = load_state() if resume else (initial_state(init_params(SHAPE, SEED)), 0)
    started, losses = time.monotonic(), []
    for at, batch in enumerate(stream):
        if at < first:
            continue
        factor = jnp.float32(schedule_factor(at, schedule))
        state, loss = train_step(schedule, state, batch, factor, jnp.float32(at + 1))
        losses.append(float(loss))
        if (at + 1) % _KEEP_EVERY == 0 or at + 1 == schedule.steps:
            spent = time.monotonic() - started
            pace = (at + 1 - first) * schedule.batch_tokens / spent
            mean = float(np.mean(losses[-_KEEP_EVERY:]))
            print(
                f"step {at + 1}/{schedule.steps} loss {mean:.4f} {pace:.0f} tokens/s {spent:.0f} s",
                flush=True,
            )
            save_state(state, at + 1)
            write_gguf(
                BUILD_DIR / "guide-latest.gguf", _as_arrays(state[3]), SHAPE, tokenizer, quantised=True
            )
        if at + 1 == schedule.phases[-1]:
            np.savez(_BEFORE_CHAT_FILE, **{name: np.asarray(value) for name, value in state[3].items()})
    return middle_of(state[3])


def middle_of(params: Params) -> Params:
    """Half-way between the weights before the last phase and these: long chats cost single questions a little, and the
    development questions liked the middle best."""
    before = np.load(_BEFORE_CHAT_FILE)
    return {name: (value + jnp.asarray(before[name])) / 2 for name, value in params.items()}


def save_state(state: State, step: int) -> None:
    """Everything that the next step needs, for ``--resume``."""
    arrays = {f"{part} {name}": np.asarray(value) for part in range(4) for name, value in state[part].items()}
    np.savez(_STATE_FILE.with_suffix(".new.npz"), step=step, **arrays)
    _STATE_FILE.with_suffix(".new.npz").replace(_STATE_FILE)


def load_state() -> tuple[State, int]:
    """The saved state and the number of steps done."""
    stored = np.load(_STATE_FILE)
    parts: State = ({}, {}, {}, {})
    for key in stored.files:
        if key != "step":
            part, _, name = key.partition(" ")
            parts[int(part)][name] = jnp.asarray(stored[key])
    return parts, int(stored["step"])


def _as_arrays(params: Params) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.asarray(value, np.float32) for name, value in params.items()}


def save_reference(path: Path, params: Params, tokenizer: Tokenizer) -> None:
    """Logits of one prompt, for the comparison with llama.cpp on the F32 file."""
    prompt = [IM_START, *tokenizer.encode("user\nwhat is a voucher? Übung"), IM_END, *tokenizer.encode("\n")]
    prompt += [IM_START, *tokenizer.encode("assistant\n")]
    tokens = jnp.asarray([prompt])
    positions = jnp.arange(len(prompt))[None]
    logits = forward(params, SHAPE, tokens, positions, jnp.zeros_like(tokens))
    np.savez(path, tokens=np.asarray(prompt), logits=np.asarray(logits[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=SCHEDULE.steps, help="fewer steps for a try: the same course, shorter"
    )
    parser.add_argument("--out", type=Path, default=MODEL_FILE, help="where the GGUF goes")
    parser.add_argument("--resume", action="store_true", help="go on from the last saved state")
    arguments = parser.parse_args()
    schedule = SCHEDULE.scaled(arguments.steps)
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    corpus, late = Corpus(Heldout(), late=False), Corpus(Heldout(), late=True)
    tokenizer = make_tokenizer(corpus)
    print(f"{len(late.intents)} intents, {tokenizer.size} tokens in the vocabulary", flush=True)
    params = train(corpus, late, tokenizer, schedule, arguments.resume)
    weights = _as_arrays(params)
    save_reference(BUILD_DIR / "reference.npz", params, tokenizer)
    write_gguf(BUILD_DIR / "guide-f32.gguf", weights, SHAPE, tokenizer, quantised=False)
    write_gguf(arguments.out, weights, SHAPE, tokenizer, quantised=True)
    size = arguments.out.stat().st_size
    print(f"wrote {arguments.out}: {size} bytes, {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
