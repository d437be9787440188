"""The decoder against transformers' own Qwen3 and Llama, and the properties that a decoder must have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib.model import huggingface
from lib.model.config import SIZES, ModelConfig, derive
from lib.model.decoder import Decoder, rope_tables, rotate
from lib.params.load import load
from lib.pipeline.errors import SmeltError

CONFIG = ModelConfig(
    vocab_size=97, context_length=32, layers=2, width=64, heads=4, kv_heads=2, feed_forward=96,
    rope_theta=10000.0, norm_eps=1e-6, qk_norm=True, tie_embeddings=False,
)  # fmt: skip
SETTINGS = load(Path(__file__).parents[2] / "params.yaml").model


def random_decoder(config: ModelConfig) -> Decoder:
    """Every weight drawn at random: initialise() leaves output projections at zero, which would hide mistakes."""
    torch.manual_seed(0)
    model = Decoder(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2)
    return model.eval()


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokens = [
        {"content": name, "id": id}
        for id, name in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"))
    ]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_directory_and_agrees(
    qk_norm: bool, tied: bool, tmp_path: Path, tokenizer_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = random_decoder(replace(CONFIG, qk_norm=qk_norm, tie_embeddings=tied))
    huggingface.save(model, tokenizer_folder, tmp_path / "model")
    peer, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert type(peer).__name__ == ("Qwen3ForCausalLM" if qk_norm else "LlamaForCausalLM")
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens = torch.randint(0, CONFIG.vocab_size, (3, CONFIG.context_length))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), peer.eval()(tokens).logits, atol=2e-4, rtol=1e-4)


def test_a_saved_directory_is_loaded_back(tmp_path: Path, tokenizer_folder: Path) -> None:
    model = random_decoder(replace(CONFIG, tie_embeddings=True))
    huggingface.save(model, tokenizer_folder, tmp_path / "model")
    again = huggingface.load(tmp_path / "model")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_no_position_sees_a_later_one() -> None:
    model, tokens = random_decoder(CONFIG), torch.randint(0, CONFIG.vocab_size, (1, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_rotary_scores_depend_on_distance_alone() -> None:
    cos, sin = rope_tables(64, 16, 10000.0)
    query, key = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 1, 64, 16)
    scores = rotate(query, cos, sin)[0, 0] @ rotate(key, cos, sin)[0, 0].T
    for distance in (0, 3, 20):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_counted_exactly(size: str) -> None:
    for tied in (True, False):
        settings = SETTINGS.model_copy(update={"size": size, "tie_embeddings": tied})
        config = derive(settings, vocab_size=1000)
        with torch.device("meta"):
            model = Decoder(config)
        assert sum(weight.numel() for weight in model.parameters()) == config.parameters


def test_the_3b_plan_has_100_million_parameters_a_layer() -> None:
    config = derive(SETTINGS.model_copy(update={"size": "3b"}), vocab_size=128_000)
    per_layer = (config.parameters - 2 * 128_000 * 3072) / config.layers
    assert per_layer == pytest.approx(100e6, rel=0.02)


def test_a_fresh_model_predicts_uniformly() -> None:
    model = Decoder(CONFIG)
    model.initialise(seed=1)
    with torch.no_grad():
        probabilities = model(torch.randint(0, CONFIG.vocab_size, (2, 8))).softmax(-1)
    assert probabilities.max() < 3 / CONFIG.vocab_size


def test_initialise_is_a_function_of_the_seed() -> None:
    models = [Decoder(CONFIG) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.initialise(seed)
    weights = [model.model.embed_tokens.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_fault_of_a_shape_is_named() -> None:
    settings = SETTINGS.model_copy(update={"width": 250, "heads": 4, "kv_heads": 3})
    with pytest.raises(SmeltError, match=r"(?s)width \(250\).*heads \(4\) must be a multiple of model.kv_heads"):
        derive(settings, 1000)
    with pytest.raises(SmeltError, match="there are: micro"):
        derive(SETTINGS.model_copy(update={"size": "huge"}), 1000)
