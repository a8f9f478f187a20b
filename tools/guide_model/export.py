"""Writes the trained weights as a GGUF that unpatched llama.cpp loads."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from tools.guide_model.config import Shape
from tools.guide_model.tokenizer import BOS, CONTROLS, FIRST_PIECE, IM_END, UNK, Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _write_header(writer: gguf.GGUFWriter, shape: Shape, quantised: bool) -> None:
    writer.add_name("DLLM guide")
    writer.add_description(
        "A small model that knows DLLM only, trained on texts that the project wrote about itself"
    )
    writer.add_license("apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_vocab_size(shape.vocab)
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32
    writer.add_file_type(kind)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256)), *tokenizer.pieces]
    types = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * (len(CONTROLS) - 1)]
    types += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(tokenizer.pieces)
    scores = [0.0] * FIRST_PIECE + [-float(rank) for rank in range(len(tokenizer.pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(IM_END)
    writer.add_unk_token_id(UNK)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_gguf(
    path: Path,
    weights: dict[str, npt.NDArray[np.float32]],
    shape: Shape,
    tokenizer: Tokenizer,
    quantised: bool,
) -> None:
    """Write one GGUF: matrices in Q8_0 (or F32), norms in F32; the output projection is the embedding.

    Args:
        weights: As trained, matrices [inputs, outputs]; GGUF wants them transposed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    _write_header(writer, shape, quantised)
    _write_tokenizer(writer, tokenizer)
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, array in weights.items():
        full = f"{name}.weight" if name[0].isalpha() else f"blk.{name}.weight"
        if array.ndim == 1:
            writer.add_tensor(full, array.astype(np.float32))
            continue
        matrix = np.ascontiguousarray(array if name == "token_embd" else array.T, dtype=np.float32)
        if quantised:
            writer.add_tensor(full, gguf.quants.quantize(matrix, q8), raw_dtype=q8)
        else:
            writer.add_tensor(full, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
