import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from lib.pipeline.errors import SmeltError
from lib.rag.bert import Bert
from tests.rag.tiny import write_embedder

MINILM = Path(__file__).parents[2] / "data/assets/minilm"
TEXTS = ["the list", "bucket", "the bucket list " * 30, "[SEP] a", "a " * 400, "?"] * 15


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_vectors_are_normalised_means_of_single_unpadded_texts(
    embedder_folder: Path, bf16: bool, tolerance: float
) -> None:
    model = BertModel(BertConfig.from_json_file(embedder_folder / "config.json")).eval()
    model.load_state_dict(load_file(embedder_folder / "model.safetensors"))
    embedder = Bert(embedder_folder, workers=2, bf16=bf16)
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS[:6], vectors, strict=False):
        ids = embedder.tokenizer.encode(text).ids
        if len(ids) > 256:
            ids = [*ids[:255], ids[-1]]
        with torch.inference_mode():
            hidden = model(torch.tensor([ids])).last_hidden_state[0].numpy().astype(np.float64)
        mean = hidden.mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_number_of_workers_changes_no_bit(embedder_folder: Path, bf16: bool) -> None:
    one, three = (Bert(embedder_folder, workers, bf16).encode(TEXTS) for workers in (1, 3))
    assert one.tobytes() == three.tobytes()


def test_a_special_token_in_a_text_is_text(embedder: Bert) -> None:
    assert Tokenizer.from_str(embedder.tokenizer.to_str()).token_to_id("[SEP]") == 3
    assert 3 not in embedder.tokenizer.encode("a [SEP] b", add_special_tokens=False).ids


def test_no_texts(embedder: Bert) -> None:
    assert embedder.encode([]).shape == (0, 32)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"has no config\.json, model\.safetensors, tokenizer\.json.*assets@gone"):
        Bert(tmp_path / "gone", workers=1)


def test_weights_that_do_not_fit_are_refused(embedder_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedder_folder, tmp_path / "minilm")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(SmeltError, match="is not a BERT encoder"):
        Bert(folder, workers=1)
    (folder / "config.json").write_text(config.replace('"intermediate_size": 64', '"intermediate_size": 32'))
    with pytest.raises(SmeltError, match="does not fit"):
        Bert(folder, workers=1)


def test_the_fingerprint_tells_embedders_apart(embedder: Bert, embedder_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(embedder_folder, tmp_path / "copy")
    assert Bert(copied, workers=1).fingerprint == embedder.fingerprint
    assert Bert(write_embedder(tmp_path / "other", seed=1), workers=1).fingerprint != embedder.fingerprint


@pytest.mark.skipif(
    not (MINILM / "model.safetensors").exists(), reason="run `dvc repro assets@minilm` to have the real one"
)
def test_minilm_finds_the_meaning() -> None:
    question, *texts = Bert(MINILM, workers=2).encode(
        [
            "How do I see which buckets I have?",
            "The following ls command lists all of the user's S3 buckets.",
            "Deletes a function of AWS Lambda.",
            "Jane Austen was an English novelist.",
        ]
    )
    similarities = [float(question @ text) for text in texts]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] > 0.5 > 0.2 > similarities[2]
