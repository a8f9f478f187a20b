"""What a provider's past is worth: Beta evidence in integers [format].

``successes`` and ``failures`` count units of evidence in fixed point 2^16. They fade by epochs, lazily: whoever
reads or writes a record first brings it to the present. Mean and variance are those of Beta(s+1, f+1).
"""

from __future__ import annotations

from math import isqrt

from dllm_protocol.records import Reputation

UNIT = 1 << 16
PPM = 1_000_000
NO_EVIDENCE = Reputation(0, 0, 0)
_FADED_AFTER_EPOCHS = 1 << 20


def faded(evidence: Reputation, epoch: int, decay: int) -> Reputation:
    """The evidence as it stands at ``epoch``.

    Args:
        decay: what one epoch leaves of it, in 2^16ths; below 2^16.
    """
    age = max(0, epoch - evidence.epoch)
    if age == 0:
        return evidence
    factor = _power(decay, min(age, _FADED_AFTER_EPOCHS))
    return Reputation(evidence.successes * factor >> 16, evidence.failures * factor >> 16, epoch)


def with_rating(evidence: Reputation, weight: int, score_permille: int) -> Reputation:
    """Evidence after one rating of ``weight`` whole units, of which score/1000 count as success."""
    success = weight * UNIT * score_permille // 1000
    return Reputation(
        evidence.successes + success, evidence.failures + weight * UNIT - success, evidence.epoch
    )


def score_ppm(evidence: Reputation) -> int:
    """Standing for choosing, in millionths: the mean plus one standard deviation, at most a million.

    The bonus lets newcomers be tried (optimism in the face of uncertainty, as in UCB) and fades as 1/√n.
    """
    successes, failures = evidence.successes + UNIT, evidence.failures + UNIT
    total = successes + failures
    mean = successes * PPM // total
    # Var Beta(a, b) = ab / ((a+b)² (a+b+1)); here in ppm² with fixed-point a and b.
    variance = successes * failures * PPM * PPM * UNIT // (total * total * (total + UNIT))
    return min(PPM, mean + isqrt(variance))


def _power(base: int, exponent: int) -> int:
    """base^exponent in 2^16ths, by squaring, rounding down at each step."""
    result = UNIT
    while exponent:
        if exponent & 1:
            result = result * base >> 16
        base = base * base >> 16
        exponent >>= 1
    return result
