"""ChatML, twice: as the Jinja template that other programs render, and as token ids that no text can forge.

A program that renders the template gets one string, in which a user who types `<|im_end|>` ends his own turn.
`encode_chat` inserts the special tokens by id and encodes everything else as plain text. For any other messages both
give the same ids; contents are stripped, because a leading line break would fuse with the one after the role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[bool]]:
    """Encode a conversation and mark the tokens that the assistant is to learn.

    Args:
        messages: `{"role": "system" | "user" | "assistant", "content": ...}`, in order.

    Returns:
        Token ids, and for each whether the loss is on it: the contents of the assistant's turns, each with its closing
        `<|im_end|>`, and not the headers, which the template supplies when the model is used.
    """
    start, end = tokenizer.token_to_id(START_OF_TURN), tokenizer.token_to_id(END_OF_TURN)
    parts = [text for message in messages for text in (message["role"] + "\n", message["content"].strip())]
    *encoded, line_break = encode_text(tokenizer, [*parts, "\n"])
    ids: list[int] = []
    mask: list[bool] = []
    for message, header, content in zip(messages, encoded[::2], encoded[1::2], strict=True):
        for tokens, learn in (
            ([start, *header], False),
            ([*content, end], message["role"] == "assistant"),
            (line_break, False),
        ):
            ids += tokens
            mask += [learn] * len(tokens)
    return ids, mask
