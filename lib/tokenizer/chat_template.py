"""ChatML, the template of the models made here, and text in which no name of a special token is one.

Contents are trimmed, because a leading line break would fuse with the one after the role. What makes ids of
conversations, by this template and any other, is lib/tokenizer/rendering.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"  # separates documents; ends what the base model writes
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"  # ends what the chat model writes
PAD = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN, PAD)  # in the order of their ids, from 0

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def encode_text(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text. The name of a special token inside a text is encoded as the characters it is made of."""
    before, tokenizer.encode_special_tokens = tokenizer.encode_special_tokens, True
    try:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    finally:
        tokenizer.encode_special_tokens = before
