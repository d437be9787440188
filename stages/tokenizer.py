"""Train the byte-level BPE tokenizer on the training mixture, and give it its chat template."""

from __future__ import annotations

import os
from itertools import islice

from lib.pipeline.run import Run, stage
from lib.text.documents import count_documents, read_documents
from lib.tokenizer.encode import measure_bytes_per_token
from lib.tokenizer.train import save_tokenizer, train_tokenizer


@stage
def main(run: Run) -> None:
    os.environ["RAYON_NUM_THREADS"] = str(run.workers)  # the threads of `tokenizers`
    folder = run.dep("data/mix/train")

    documents = run.progress(read_documents(folder), count_documents(folder), " documents")
    tokenizer = train_tokenizer((document.text for document in documents), run.param("tokenizer").vocab_size)
    save_tokenizer(tokenizer, run.out("models/tokenizer"))

    every_tenth = islice(read_documents(folder), 0, None, 10)
    metrics = {
        "vocab_size": tokenizer.get_vocab_size(),
        "bytes_per_token": round(measure_bytes_per_token(tokenizer, every_tenth), 4),
        "training_bytes": sum(len(document.text.encode()) for document in read_documents(folder)),
    }
    run.metrics(metrics)
    run.log("{vocab_size} tokens, {bytes_per_token} bytes each, from {training_bytes:,} bytes".format(**metrics))


if __name__ == "__main__":
    main()
