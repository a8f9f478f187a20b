"""What happens while an answer is made: the vocabulary between the chat service and whoever shows it.

Every text in here that came from the network is already stripped of control and bidi characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dllm_protocol.pricing import RowPrices


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the client picks each token from the logits it was given."""

    temperature: float = 0.3
    """0 = greedy: always the likeliest."""
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.1
    repetition_penalty: float = 1.0
    """Above 1, tokens that stood before get less likely."""
    seed: int | None = None
    """Same seed, same answer, from the same logits. None draws one."""


@dataclass(frozen=True, slots=True)
class AskOptions:
    """One question's wishes."""

    model: str | None = None
    """A registered model's name; None = the network's default."""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    max_cost_udllm: int | None = None
    """Refuse a quote above this."""
    exclude: tuple[bytes, ...] = ()
    """Provider ids not to use."""
    speculation: bool = True
    """Ask for rows on a guess where that saves time; the answer is the same."""


@dataclass(frozen=True, slots=True)
class ProviderShare:
    """Somebody who served, or would serve, a part of an answer."""

    address: str
    """Provider id, bech32."""
    owner: str
    """Who is paid, bech32."""
    first_layer: int
    end_layer: int
    reputation_ppm: int


@dataclass(frozen=True, slots=True)
class QuotedStage:
    """Who would serve a part of the model's layers, and at what price."""

    provider: ProviderShare
    standby: ProviderShare | None
    prices: RowPrices
    """For a row through the stage's layers."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What an answer may cost, before anything is locked."""

    model: str
    stages: tuple[QuotedStage, ...]
    """In the order of their layers; a model that is served whole has one."""
    prompt_tokens_estimate: int
    max_tokens: int
    likely_cost_udllm: int
    """For the prompt and half the tokens allowed."""
    max_cost_udllm: int
    """For the prompt and all tokens allowed, a replay after a failure of each stage included."""
    deposit_udllm: int
    """What will be locked now; 0 where an open session has enough left."""
    fees_udllm: int
    """Transaction fees now and at closing."""
    drafted_in_vain_rows: int = 0
    """Rows that may be decoded on a guess and come to nothing; they are in the highest cost. 0: no guesses."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Something is under way; one short sentence for a status line."""

    text: str


@dataclass(frozen=True, slots=True)
class QuoteReady:
    """The quote, before anything is locked."""

    quote: Quote


@dataclass(frozen=True, slots=True)
class Routed:
    """The session stands and its route was recomputed here; who serves."""

    session: str
    """Session id, hex."""
    providers: tuple[ProviderShare, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class TookOver:
    """A provider failed and the standby goes on; no text is repeated or lost."""

    failed: ProviderShare
    successor: ProviderShare
    reason: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What an answer that failed has cost all the same; its error comes right behind."""

    cost_udllm: int
    """At most: what the vouchers signed for it come to."""
    fees_udllm: int


@dataclass(frozen=True, slots=True)
class StageLinkShown:
    """How hidden states went from one stage to the next."""

    form: str
    """``f32`` or ``bf16``, by the speed of the link as the stage before measured it."""
    round_trip_us: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished (or stopped) answer."""

    reply: str
    model: str
    badge: str
    """``LOCAL`` or ``NETWORK``."""
    chain_id: str
    providers: tuple[ProviderShare, ...]
    """Those who served, in order."""
    prompt_tokens: int
    completion_tokens: int
    cost_udllm: int
    """What the vouchers signed for this answer come to."""
    fees_udllm: int
    """Fees of the transactions that it caused."""
    receipt: Path
    verified_height: int
    verified_hash: str
    """Upper-case hex."""
    finish_reason: str
    """``stop``, ``length`` or ``stopped`` (by the person)."""
    drafted_rows: int = 0
    """Rows asked for on a guess."""
    accepted_rows: int = 0
    """Those of them whose token was sampled."""
    close_calls: int = 0
    """Tokens of windows that another batch shape might have tipped over."""
    links: tuple[StageLinkShown, ...] = ()
    """From each stage to the next, as they were at the end; none where one stage serves."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of an answer."""

    answer: Answer


AskEvent = Progress | QuoteReady | Routed | TextDelta | TookOver | Answered | Spent


@dataclass(frozen=True, slots=True)
class Balance:
    """Where the person's tokens are; all proved at one height."""

    address: str
    spendable_udllm: int
    in_sessions_udllm: int
    """Deposits less vouchers signed."""
    earned_unclaimed_udllm: int
    """Vouchers that a worker of this home holds and has not claimed."""
    height: int
    play_money: bool
    """True on an embedded network."""


@dataclass(frozen=True, slots=True)
class ServedSlice:
    """Layers of a model that a worker serves, and as whom."""

    model: str
    layers: tuple[int, int]
    """First layer, and the one behind the last."""
    provider: str
    sessions: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The contribute-GPU toggle."""

    running: bool
    state: str
    """``off``, ``starting``, ``serving``, ``draining`` or ``failed``."""
    model: str
    provider: str
    sessions: int
    tokens_per_s: float
    earned_udllm: int
    """Claimed and unclaimed, since it was switched on."""
    problem: str
    backend: str = ""
    """What computes its rows: ``llama.cpp``, or ``openai`` at ``backend_url``."""
    backend_url: str = ""
    slices: tuple[ServedSlice, ...] = ()
    """All that it serves; ``model`` and ``provider`` are those of the first."""
    endpoints: dict[str, str] = field(default_factory=dict)
    """Where it answers, best first, and of each whether it is ``open`` now, or why not."""
