"""The Llama architecture in JAX, laid out exactly as llama.cpp reads it.

Rotary embedding turns neighbouring pairs (2i, 2i+1), llama.cpp's "normal" order, so no weight is permuted on
export. The output projection is the token embedding (tied).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tools.guide_model.config import Shape

Params = dict[str, jax.Array]


def init_params(shape: Shape, seed: int) -> Params:
    """Random weights: normal, scaled by fan-in; residual outputs scaled down by depth."""
    rng = np.random.default_rng(seed)
    kv_width = shape.kv_heads * shape.head_width

    def normal(rows: int, cols: int, scale: float) -> jax.Array:
        return jnp.asarray(rng.standard_normal((rows, cols)) * scale, jnp.float32)

    params: Params = {"token_embd": normal(shape.vocab, shape.width, 0.02)}
    fan = shape.width**-0.5
    deep = (2 * shape.layers) ** -0.5
    for i in range(shape.layers):
        params[f"{i}.attn_norm"] = jnp.ones(shape.width)
        params[f"{i}.attn_q"] = normal(shape.width, shape.width, fan)
        params[f"{i}.attn_k"] = normal(shape.width, kv_width, fan)
        params[f"{i}.attn_v"] = normal(shape.width, kv_width, fan)
        params[f"{i}.attn_output"] = normal(shape.width, shape.width, fan * deep)
        params[f"{i}.ffn_norm"] = jnp.ones(shape.width)
        params[f"{i}.ffn_gate"] = normal(shape.width, shape.hidden, fan)
        params[f"{i}.ffn_up"] = normal(shape.width, shape.hidden, fan)
        params[f"{i}.ffn_down"] = normal(shape.hidden, shape.width, shape.hidden**-0.5 * deep)
    params["output_norm"] = jnp.ones(shape.width)
    return params


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary embedding of x [batch, time, heads, head_width] at positions [batch, time]."""
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half) / half)
    angle = positions[..., None, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape)


def forward(
    params: Params,
    shape: Shape,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
) -> jax.Array:
    """Logits [batch, time, vocab].

    Args:
        tokens, positions, segments: int32 [batch, time]. A token sees earlier tokens of its own segment only, so
            several dialogues share one row.
    """
    batch, time = tokens.shape
    causal = jnp.tril(jnp.ones((time, time), bool))
    mask = causal[None] & (segments[:, :, None] == segments[:, None, :])
    bias = jnp.where(mask, 0.0, -1e9)[:, None]
    group = shape.heads // shape.kv_heads
    x = params["token_embd"][tokens]
    for i in range(shape.layers):
        h = rms_norm(x, params[f"{i}.attn_norm"], shape.norm_eps)
        q = (h @ params[f"{i}.attn_q"]).reshape(batch, time, shape.heads, shape.head_width)
        k = (h @ params[f"{i}.attn_k"]).reshape(batch, time, shape.kv_heads, shape.head_width)
        v = (h @ params[f"{i}.attn_v"]).reshape(batch, time, shape.kv_heads, shape.head_width)
        q, k = rotate(q, positions, shape.rope_base), rotate(k, positions, shape.rope_base)
        k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * shape.head_width**-0.5 + bias
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)
        x = x + mixed.reshape(batch, time, shape.width) @ params[f"{i}.attn_output"]
        h = rms_norm(x, params[f"{i}.ffn_norm"], shape.norm_eps)
        gated = jax.nn.silu(h @ params[f"{i}.ffn_gate"]) * (h @ params[f"{i}.ffn_up"])
        x = x + gated @ params[f"{i}.ffn_down"]
    return rms_norm(x, params["output_norm"], shape.norm_eps) @ params["token_embd"].T
