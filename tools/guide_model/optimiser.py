"""The optimiser: Muon for the layers' matrices, AdamW for the embedding and the norms.

Muon (Jordan et al. 2024) takes the momentum's nearest semi-orthogonal matrix as the step, by five Newton-Schulz
iterations; on this small budget it needs about half of AdamW's steps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tools.guide_model.config import Schedule
from tools.guide_model.model import Params

State = tuple[Params, Params, Params, Params]


def initial_state(params: Params) -> State:
    """(weights, first moments, second moments, average of the weights), each with memory of its own."""
    return (
        params,
        {name: jnp.zeros_like(value) for name, value in params.items()},
        {name: jnp.zeros_like(value) for name, value in params.items()},
        {name: jnp.array(value) for name, value in params.items()},
    )


def schedule_factor(step: int, schedule: Schedule) -> float:
    """The share of the full learning rates at a step, see Schedule."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    cooled = schedule.phases[-2]
    for begin, end in ((cooled, schedule.phases[-1]), (schedule.phases[-1], schedule.steps)):
        if begin <= step < end:
            return schedule.second_rise * (end - step) / (end - begin)
    halved: float = 0.5 ** (max(0, step - schedule.decay_from) / schedule.half_life_steps)
    return max(halved, schedule.floor) * min(1.0, (cooled - step) / schedule.cooldown_steps)


def orthogonalise(matrix: jax.Array) -> jax.Array:
    """About U V^T of the matrix, by the quintic Newton-Schulz iteration with Muon's coefficients."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.T


def apply(state: State, grads: Params, schedule: Schedule, factor: jax.Array, count: jax.Array) -> State:
    """One step.

    Args:
        factor: The schedule's share of the full learning rates.
        count: Steps done, this one included; corrects AdamW's young moments and the young average.
    """
    params, first, second, average = state
    out: State = ({}, {}, {}, {})
    keep = jnp.minimum(schedule.average_decay, count / (count + 10.0))
    for name, value in params.items():
        grad = grads[name]
        if value.ndim == 2 and name != "token_embd":
            moment = schedule.momentum * first[name] + grad
            step = orthogonalise(grad + schedule.momentum * moment)
            step = step * max(1.0, value.shape[1] / value.shape[0]) ** 0.5
            rate = schedule.matrix_rate * factor
            out[2][name] = second[name]
        else:
            moment = schedule.beta1 * first[name] + (1 - schedule.beta1) * grad
            square = schedule.beta2 * second[name] + (1 - schedule.beta2) * grad * grad
            corrected = jnp.sqrt(square / (1 - schedule.beta2**count)) + 1e-8
            step = moment / (1 - schedule.beta1**count) / corrected
            rate = schedule.other_rate * factor
            out[2][name] = square
        decay = schedule.weight_decay if value.ndim == 2 else 0.0
        out[0][name] = value - rate * (step + decay * value)
        out[1][name] = moment
        out[3][name] = keep * average[name] + (1 - keep) * out[0][name]
    return out
