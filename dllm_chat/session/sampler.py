"""Picking the next token. The client always does it itself, so no worker can put a word into an answer."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence

from dllm_chat.session.events import Sampling
from dllm_protocol.errors import UsageRefused
from dllm_protocol.messages import MAX_TOP_K

_SEED_BITS = 63


class BadSampling(UsageRefused):
    """A sampling value outside its range."""

    code = "E_SAMPLING"


def check_sampling(sampling: Sampling) -> None:
    """Refuse values outside their ranges.

    Raises:
        BadSampling: naming the value and its range.
    """
    for name, value, low, high in (
        ("temperature", sampling.temperature, 0.0, 10.0),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("top_k", sampling.top_k, 1, MAX_TOP_K),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repetition_penalty", sampling.repetition_penalty, 0.1, 10.0),
    ):
        if not low <= value <= high:
            raise BadSampling(f"{name} is {value}, allowed is {low} to {high}")


class Sampler:
    """Samples from the largest logits of each row, the same way for the same seed."""

    def __init__(self, sampling: Sampling, fallback_seed: int) -> None:
        """Prepare.

        Args:
            fallback_seed: drawn by the caller; used where the person named none.
        """
        check_sampling(sampling)
        self._sampling = sampling
        self.margin = math.inf
        """How far logits would have to move for the newest token to be another one; for a drawn one: about."""
        seed = fallback_seed if sampling.seed is None else sampling.seed
        self._random = random.Random(seed % (1 << _SEED_BITS))  # noqa: S311 - sampling, not secrets

    def pick(self, ids: Sequence[int], logits: Sequence[float], seen: Collection[int]) -> int:
        """The next token.

        Args:
            ids, logits: the largest logits of a row with their tokens, the largest first.
            seen: tokens that stood before, for the repetition penalty.
        """
        ranked = self._penalised(ids, logits, seen)
        sampling = self._sampling
        if sampling.temperature <= 0.0:
            self.margin = ranked[0][0] - ranked[1][0] if len(ranked) > 1 else math.inf
            return ranked[0][1]
        ranked = ranked[: sampling.top_k]
        top = ranked[0][0]
        weights = [math.exp((logit - top) / sampling.temperature) for logit, _ in ranked]
        keep = _kept(weights, sampling.min_p, sampling.top_p)
        return self._draw([token for _, token in ranked[:keep]], weights[:keep])

    def _penalised(
        self, ids: Sequence[int], logits: Sequence[float], seen: Collection[int]
    ) -> list[tuple[float, int]]:
        """(logit, token), largest first; ties go to the smaller token so that greedy is reproducible."""
        penalty = self._sampling.repetition_penalty
        pairs = [
            (_discouraged(logit, penalty) if penalty != 1.0 and token in seen else logit, token)
            for logit, token in zip(logits, ids, strict=True)
        ]
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))

    def _draw(self, tokens: Sequence[int], weights: Sequence[float]) -> int:
        total = sum(weights)
        point = self._random.random() * total
        for token, weight in zip(tokens, weights, strict=True):
            # A share p moves by at most 1/4 when its logit moves by the temperature.
            nearest = min(point, abs(weight - point)) / total
            point -= weight
            if point < 0.0:
                self.margin = 4.0 * self._sampling.temperature * nearest
                return token
        self.margin = 0.0
        return tokens[-1]


def _discouraged(logit: float, penalty: float) -> float:
    """Keskar et al. 2019 (CTRL): divide positive logits, multiply negative ones."""
    return logit / penalty if logit > 0.0 else logit * penalty


def _kept(weights: Sequence[float], min_p: float, top_p: float) -> int:
    """How many of the weights, largest first, survive min-p and then top-p; at least one."""
    alive = [weight for weight in weights if weight >= min_p * weights[0]]
    limit = top_p * sum(alive)
    running = 0.0
    for count, weight in enumerate(alive, start=1):
        running += weight
        if running >= limit:
            return count
    return max(1, len(alive))
