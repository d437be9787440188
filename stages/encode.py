"""Encode the mixture into memory-mapped token shards, packed into rows; measure what a model has to beat."""

from __future__ import annotations

import os

from tokenizers import Tokenizer

from lib.evals.baselines import measure_baselines
from lib.evals.held_out import sample_held_out
from lib.pipeline.errors import SmeltError
from lib.pipeline.run import Run, stage
from lib.text.documents import count_documents, read_documents
from lib.tokenizer.encode import encode_documents, encode_separated, write_index

SPLITS = ("train", "val", "test")


@stage
def main(run: Run) -> None:
    os.environ["RAYON_NUM_THREADS"] = str(run.workers)  # the threads of `tokenizers`
    mix, tokenizer_file = run.dep("data/mix"), run.dep("models/tokenizer/tokenizer.json")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    out, context_length = run.out("data/tokens"), run.param("model.context_length")
    splits = {}
    for name in SPLITS:
        documents = run.progress(read_documents(mix / name), count_documents(mix / name), f" {name} documents")
        shard_tokens = run.param("encode").shard_tokens
        splits[name] = encode_documents(tokenizer, documents, out / name, shard_tokens, context_length)
    train = splits["train"]
    if not train.tokens:
        raise SmeltError("data/mix/train has no documents, so there is nothing to train on; add some to a source")
    write_index(out, tokenizer, tokenizer_file, splits)

    texts = [document.text for document in sample_held_out(mix / "test", run.param("evaluate.held_out_bytes"))]
    baselines = measure_baselines(train.token_counts, texts, encode_separated(tokenizer, texts))
    sources = {
        source: {
            "train_tokens": tokens,
            "train_share": round(tokens / train.tokens, 4),
            "bytes_per_token": round(train.source_bytes[source] / tokens, 4),
        }
        for source, tokens in sorted(train.source_tokens.items())
    }
    run.metrics(
        {
            "tokens": {name: split.tokens for name, split in splits.items()},
            "packing": {name: split.packing() for name, split in splits.items()},
            "sources": sources,
            "baselines": {name: value and round(value, 4) for name, value in baselines.items()},
        }
    )
    padding = 1 - train.labels / (train.rows * context_length)
    run.log(
        f"{train.tokens:,} training tokens in {train.rows:,} rows of {context_length}, {padding:.2%} padding; "
        f"{len(texts)} held-out documents sampled for the baselines"
    )


if __name__ == "__main__":
    main()
