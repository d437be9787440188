"""Imported for what it does: libraries keep to themselves what their own build lacks, which no user could mend."""

import logging

for noisy in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
