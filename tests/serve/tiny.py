"""GGUFs that answer in milliseconds: one of random weights, and one that recites.

Their vocabulary is 256 bytes and the special tokens of ChatML.
"""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from lib.tokenizer.chat_template import CHAT_TEMPLATE, SPECIAL_TOKENS

WIDTH, FEED_FORWARD, HEADS = 32, 64, 2
TOKENS = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]


def write_gguf(path: Path, context: int = 256, template: str | None = CHAT_TEMPLATE) -> Path:
    """A llama of one layer that writes small letters, and ends its turn wherever it would have written an e."""
    draw = np.random.default_rng(0)
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in _shapes(len(TOKENS)).items()}
    tensors["output"][[not (token.isascii() and token.islower()) for token in TOKENS]] = 0
    tensors["output"][TOKENS.index("<|im_end|>")] = 2 * tensors["output"][TOKENS.index("e")]
    return _write(path, TOKENS, tensors, context, template)


def write_reciter(path: Path, pieces: Sequence[str], context: int = 256, forever: bool = False) -> Path:
    """A llama that answers whatever it is asked with the same text.

    Args:
        pieces: what it says, one token each, all different, at most as many as it is wide.
        forever: it begins again at the end.
    """
    plain, byte_level = [*TOKENS], pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    said = [byte_level.pre_tokenize_str(piece)[0][0] for piece in pieces]
    tokens = plain + [token for token in said if token not in plain]
    tensors = {name: np.zeros(shape, np.float32) for name, shape in _shapes(len(tokens)).items()}
    # Each token of the text points at the next; a prompt ends with the line break after <|im_start|>assistant.
    ends = said[0] if forever else "<|im_end|>"
    for place, (token, following) in enumerate(zip(["\u010a", *said], [*said, ends], strict=True)):
        tensors["token_embd"][tokens.index(token), place] = 1
        tensors["output"][tokens.index(following), place] = 1
    return _write(path, tokens, tensors, context, CHAT_TEMPLATE)


def _shapes(vocabulary: int) -> dict[str, tuple[int, int]]:
    return {
        "token_embd": (vocabulary, WIDTH),
        "output": (vocabulary, WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH, WIDTH),
        "blk.0.attn_v": (WIDTH, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_up": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_down": (WIDTH, FEED_FORWARD),
    }


def _write(
    path: Path, tokens: Sequence[str], tensors: dict[str, np.ndarray], context: int, template: str | None
) -> Path:
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
    plain = len(tokens) - len(SPECIAL_TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS) + [gguf.TokenType.NORMAL] * plain)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(2)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(template)
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
