"""A BERT of random weights that embeds in a millisecond, in the three files of a real one."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from lib.rag.chunk import Chunker
from lib.rag.embed import Embedder
from lib.rag.store import IndexWriter
from lib.text.documents import Document

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def write_embedder(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = ["the", "list", "bucket", "##s", *characters, *(f"##{c}" for c in characters)]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(128)  # as all-MiniLM-L6-v2 comes, and as it must not be used
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(folder / "tokenizer.json"))

    config = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=300, initializer_range=0.2)  # fmt: skip
    config.to_json_file(folder / "config.json")
    torch.manual_seed(seed)
    save_file(BertModel(config).state_dict(), folder / "model.safetensors")
    return folder


def document(name: str, text: str, **kept: str) -> Document:
    return Document(f"docs/{name}", text, f"file:{name}", "docs", "CC0-1.0", json.dumps([kept]))


def write_index(
    folder: Path, embedder: Path, documents: Iterable[Document], top_k: int = 4, min_similarity: float = -1.0
) -> Path:
    """An index of `documents` in `folder`, built with the embedder that `write_embedder` wrote."""
    loaded = Embedder(embedder, workers=1)
    chunker = Chunker(loaded.tokenizer, 50, 5)
    with IndexWriter(folder, loaded, top_k, min_similarity) as index:
        for one in documents:
            found = list(chunker.passages(one))
            index.add(found, loaded.encode([passage.text for passage in found]))
    return folder
