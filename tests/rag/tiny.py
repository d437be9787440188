"""A BERT of random weights that embeds in a millisecond, in the three files of a real one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from lib.params.retrieval import Index
from lib.rag import build
from lib.rag.bert import Bert
from lib.rag.embed import Embedder, load_embedder
from lib.text.documents import Document

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer() -> Tokenizer:
    """A WordPiece that knows three words and every character."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = ["the", "list", "bucket", "##s", *characters, *(f"##{c}" for c in characters)]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def write_embedder(folder: Path, seed: int = 0) -> Path:
    # Here, as torch takes seconds to import, and many tests need none.
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True)
    made = tokenizer()
    made.enable_truncation(128)  # as all-MiniLM-L6-v2 comes, and as it must not be used
    made.enable_padding(length=128)
    made.save(str(folder / "tokenizer.json"))

    config = BertConfig(vocab_size=made.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=300, initializer_range=0.2)  # fmt: skip
    config.to_json_file(folder / "config.json")
    torch.manual_seed(seed)
    save_file(BertModel(config).state_dict(), folder / "model.safetensors")
    return folder


def document(name: str, text: str, **kept: str) -> Document:
    return Document(f"docs/{name}", text, f"file:{name}", "docs", "CC0-1.0", json.dumps([kept]))


def settings(**changes: Any) -> Index:
    """Of an index for tests: its embedder lies in data/assets/minilm, which `write_embedder` made."""
    endpoint = {"url": None, "model": None, "key": None, "max_tokens": 256, "prefix": "", "question_prefix": "",
                "batch": 8, "timeout_seconds": 5, "retries": 0}  # fmt: skip
    values = {
        "embedder": {"kind": "folder", "folder": "data/assets/minilm", "openai": endpoint},
        "chunk_tokens": 50, "overlap_tokens": 5, "sources": {"docs": None}, "store": "chroma", "mode": "vector",
        "candidates": 20, "top_k": 4, "min_similarity": -1.0, "min_words": 0.0, "rerank": None,
    }  # fmt: skip
    return Index.model_validate(values | changes)


def write_index(
    folder: Path, embedder: Path | Embedder | None, documents: Iterable[Document], /, top_k: int = 4,
    min_similarity: float = -1.0, root: Path = Path(), **changes: Any,
) -> Path:  # fmt: skip
    """An index of `documents` in `folder`, built with this embedder, or the one that `write_embedder` wrote there.

    None: with the embedder of its settings, in the repository at `root`.
    """
    wanted = settings(top_k=top_k, min_similarity=min_similarity, **changes)
    loaded = Bert(embedder, workers=1) if isinstance(embedder, Path) else embedder
    loaded = loaded or load_embedder(wanted.embedder, root, 1)
    build.write_index(folder, wanted, loaded, documents).close()
    return folder
