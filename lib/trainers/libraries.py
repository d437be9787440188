"""transformers and peft, imported once and for all: without code of others, and without their remarks."""

from __future__ import annotations

import sys
import warnings

# transformers and bitsandbytes would fetch compiled code from a hub where the package `kernels` is installed: nothing
# that is loaded here may bring code.
sys.modules.setdefault("kernels", None)
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

from lib.pipeline import quiet  # noqa: E402, F401
from lib.trainers import unsloth  # noqa: E402

unsloth.import_first()

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

__all__ = [
    "AutoModelForCausalLM",
    "LoraConfig",
    "PeftModel",
    "PreTrainedModel",
    "PreTrainedTokenizerFast",
    "get_peft_model",
    "transformers_logging",
]
