"""A GGUF of random weights that answers in milliseconds: 256 bytes and the special tokens of ChatML."""

from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from lib.tokenizer.chat_template import CHAT_TEMPLATE, SPECIAL_TOKENS

WIDTH, FEED_FORWARD, HEADS = 32, 64, 2
TOKENS = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]


def write_gguf(path: Path, context: int = 256, template: str | None = CHAT_TEMPLATE) -> Path:
    """A llama of one layer."""
    tokens = TOKENS
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS) + [gguf.TokenType.NORMAL] * 257)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(2)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(template)
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output": (len(tokens), WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH, WIDTH),
        "blk.0.attn_v": (WIDTH, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_up": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_down": (WIDTH, FEED_FORWARD),
    }
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    # It writes small letters only, and ends its turn wherever it would have written an e.
    tensors["output"][[not (token.isascii() and token.islower()) for token in tokens]] = 0
    tensors["output"][tokens.index("<|im_end|>")] = 2 * tensors["output"][tokens.index("e")]
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
