"""What is trained of a base: low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685), by peft.

DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353) and rsLoRA (Kalajdzievski 2023,
https://arxiv.org/abs/2312.03732) are kinds of them. QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314)
holds the base in 4 bits meanwhile.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lib.params.training import Tuning
from lib.pipeline.errors import SmeltError
from lib.trainers.libraries import LoraConfig, PeftModel, PreTrainedModel, get_peft_model

HEAD = "lm_head"
LARGEST = 1e-3  # difference of logits that rounding explains, of the largest of them


def add_adapter(model: PreTrainedModel, settings: Tuning, seed: int) -> PeftModel:
    """Adapters on every linear layer, the output head included.

    Pretraining never shows the markers of a conversation, so the head has to learn to end a turn. A head that is tied
    to the embedding is left alone: an adapter on one would untie them.
    """
    torch.manual_seed(seed)
    names = {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if model.config.tie_word_embeddings:
        names.discard(HEAD)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        target_modules=sorted(names),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def quantise(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Hold the linear layers of the blocks in 4 bits: NF4 in blocks of 64, the blocks' scales in 8 bits.

    What else there is (embedding, head, norms) stays as it is. Products are computed in `dtype`.

    Raises:
        SmeltError: bitsandbytes does not run on this device.
    """
    if device.type not in ("cpu", "cuda"):
        raise SmeltError(
            f"finetune.method qlora does not run on {device.type}: bitsandbytes has no 4 bits there. Use lora"
        )
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name != HEAD:
            four = Linear4bit(layer.in_features, layer.out_features, False, compute_dtype=dtype, device="meta")
            four.weight = Params4bit(layer.weight.data, quant_type="nf4", compress_statistics=True, module=four)
            four.bias = layer.bias
            # Else the first validation on a processor with AVX512-BF16 packs the weights for inference, for good: no
            # gradient passes through them after that, and none is missed.
            four.support_avx512bf16_for_cpu = False
            four.register_forward_pre_hook(_as_autocast_does)
            model.set_submodule(name, four.to(device))
    for weight in model.parameters():
        weight.requires_grad = False
    model.is_loaded_in_4bit = True  # by which peft knows


def _as_autocast_does(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Under autocast a layer gives what it computed. bitsandbytes' casts it to the type of what it was given, which
    behind a norm is fp32, and what the backward pass needs would take twice the memory that it takes with lora."""
    (x,) = given
    return (x.to(layer.compute_dtype),) if torch.is_autocast_enabled(x.device.type) else None


@torch.no_grad()
def merge(model: PeftModel, tokens_BT: np.ndarray | Tensor) -> PreTrainedModel:
    """The base model with the adapter added into its weights.

    Raises:
        SmeltError: it gives other logits for the tokens than the adapter beside the base.
    """
    model.eval()
    tokens = torch.as_tensor(tokens_BT, device=model.device)
    beside = model(input_ids=tokens, use_cache=False).logits
    merged = model.merge_and_unload()
    check_equal(beside, merged(input_ids=tokens, use_cache=False).logits)
    return merged


def check_equal(beside: Tensor, merged: Tensor) -> None:
    """Raises SmeltError where logits differ by more than rounding explains, or are not finite."""
    difference, largest = (merged - beside).abs().max().item(), beside.abs().max().item()
    if not difference <= LARGEST * largest:  # written so that NaN fails too
        raise SmeltError(
            f"the adapter merged into the base gives other logits than beside it: they differ by up to "
            f"{difference:.3g}, the largest being {largest:.3g}. models/chat would not be what was trained; nothing "
            f"was written. A smaller finetune.learning_rate or alpha keeps weights in the range that fp32 can add"
        )
