"""Train the decoder from scratch on the packed tokens and write it as a Hugging Face directory."""

import json
import math

from lib.backends.select import select_backend
from lib.model import huggingface
from lib.model.config import derive
from lib.model.decoder import Decoder
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file
from lib.pipeline.run import Run, stage
from lib.trainers import laws
from lib.trainers.loader import TokenBlocks
from lib.trainers.loop import Trainer
from lib.trainers.objectives import decoder_logits
from lib.trainers.optimizers import for_pretraining, remarks


@stage
def main(run: Run) -> None:
    seed, given = run.param("seed"), run.param("pretrain")
    tokens, tokenizer = run.dep("data/tokens"), run.dep("models/tokenizer")

    vocab_size = json.loads((tokens / "index.json").read_text(encoding="utf-8"))["vocab_size"]
    config = derive(run.param("model"), vocab_size)
    settings, backend = laws.resolve(given, config), select_backend()
    for line in (*laws.describe(given, config), *remarks(settings, backend)):
        run.log(line)
    rows, remainder = divmod(settings.batch_tokens, config.context_length)
    if remainder or not rows:
        raise SmeltError(
            f"pretrain.batch_tokens ({settings.batch_tokens}) must be a multiple of model.context_length "
            f"({config.context_length})"
        )
    steps = math.ceil(settings.tokens / settings.batch_tokens)

    fingerprint = hash_file(tokenizer / "tokenizer.json")
    train, val = (TokenBlocks(tokens, split, config.context_length, fingerprint) for split in ("train", "val"))
    model = Decoder(config)
    model.initialise(seed)
    epochs = steps * rows / len(train)
    run.log(f"{config.parameters:,} parameters, {steps} steps of {settings.batch_tokens} tokens, {epochs:.2f} epochs")

    optimizers = for_pretraining(model, settings, backend)
    trainer = Trainer(run, backend, model, optimizers, decoder_logits, settings, train, val, steps, rows, seed)
    history = trainer.fit()

    huggingface.save(model, tokenizer, run.out("models/base"))
    history.write(run)
    run.metrics(
        {
            "parameters": config.parameters,
            "flops_per_token": config.flops_per_token,
            "tokens": trainer.tokens,
            "epochs": round(epochs, 3),
            "steps": steps,
            "loss": round(history.train[-1]["loss"], 4),
            "val_loss": round(history.val[-1]["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
