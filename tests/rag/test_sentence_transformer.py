"""Folders of the sentence-transformers library, written by that library: pooling, prompts, limits, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer as Library
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from lib.pipeline.errors import SmeltError
from lib.rag.bert import Bert
from lib.rag.embed import Embedder, load_embedder
from lib.rag.rerank import Reranker
from lib.rag.search import Retriever
from tests.rag.tiny import document, settings, write_index

TEXTS = ["the list", "bucket", "the bucket list " * 30, "a " * 400, "?"] * 15
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@pytest.fixture(scope="module")
def plain(embedder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT as transformers writes it, with its tokenizer's settings."""
    folder = tmp_path_factory.mktemp("plain") / "bert"
    shutil.copytree(embedder_folder, folder)
    PreTrainedTokenizerFast(tokenizer_file=str(embedder_folder / "tokenizer.json"), **SPECIAL).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"], "model_type": "bert"}))
    return folder


def write(plain: Path, folder: Path, pooling: str, prompts: dict[str, str]) -> Path:
    """A folder of the library under root/data/assets/model; root comes back."""
    transformer = Transformer(str(plain), max_seq_length=60)
    modules = [transformer, Pooling(32, pooling_mode=pooling), Normalize()]
    Library(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(folder / "data/assets/model"))
    return folder


def of(root: Path, workers: int = 1) -> Embedder:
    wanted = settings().embedder.model_dump() | {"folder": "data/assets/model"}
    return load_embedder(type(settings().embedder).model_validate(wanted), root, workers)


@pytest.mark.parametrize("pooling", ["cls", "max", "mean"])
def test_vectors_are_the_librarys(plain: Path, tmp_path: Path, pooling: str) -> None:
    root = write(plain, tmp_path, pooling, {"query": "the list: ", "document": ""})
    embedder = of(root)
    assert (embedder.dimension, embedder.max_tokens) == (32, 60)
    library = Library(str(root / "data/assets/model"), device="cpu")
    np.testing.assert_allclose(embedder.encode(TEXTS), library.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(embedder.encode_questions(["why"]), library.encode(["the list: why"]), atol=1e-5)
    assert np.abs(embedder.encode_questions(["why"]) - embedder.encode(["why"])).max() > 1e-3
    assert embedder.encode([]).shape == (0, 32)
    assert embedder.encode(TEXTS).tobytes() == of(root, workers=3).encode(TEXTS).tobytes()


def test_mean_pooling_is_ours(plain: Path, embedder: Bert, tmp_path: Path) -> None:
    texts = [text for text in TEXTS if len(text) < 50]
    np.testing.assert_allclose(of(write(plain, tmp_path, "mean", {})).encode(texts), embedder.encode(texts), atol=1e-5)


def test_an_index_is_built_and_searched_with_it(plain: Path, tmp_path: Path) -> None:
    root = write(plain, tmp_path, "cls", {})
    wanted = settings().embedder.model_dump() | {"folder": "data/assets/model"}
    documents = [document("list", "the list the bucket"), document("long", "the bucket " * 200)]
    folder = write_index(root / "index", None, documents, embedder=wanted, root=root)
    with Retriever.open(folder, stores=root / "stores", root=root) as retriever:
        assert retriever.search("the list the bucket")[0].passage.document == "docs/list"
        tokenizer = retriever.embedder.tokenizer
        assert all(len(tokenizer.encode(one.text).ids) <= 60 for one in retriever.document("docs/long"))


def test_the_fingerprint_is_of_every_file(plain: Path, tmp_path: Path) -> None:
    root = write(plain, tmp_path, "mean", {})
    before = of(root).fingerprint
    file = next((root / "data/assets/model").rglob("*ooling*/config.json"))
    file.write_text(file.read_text() + " ")
    assert of(root).fingerprint != before


def test_code_of_the_folder_is_not_run(plain: Path, tmp_path: Path) -> None:
    root = write(plain, tmp_path, "mean", {})
    folder = root / "data/assets/model"
    (folder / "mine.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Mine: pass\n"
    )
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "mine.Mine"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SmeltError, match=r"embedder .* cannot be read"):
        of(root)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused(plain: Path, tmp_path: Path) -> None:
    root = write(plain, tmp_path, "mean", {})
    (weights,) = (root / "data/assets/model").rglob("model.safetensors")
    weights.unlink()
    torch.save({}, weights.with_name("pytorch_model.bin"))
    with pytest.raises(SmeltError, match="cannot be read"):
        of(root)


@pytest.fixture(scope="module")
def cross_encoder(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross") / "data/assets/reranker"
    shutil.copytree(plain, folder)
    config = BertConfig.from_json_file(folder / "config.json")
    config.num_labels = 1
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_reranking_orders_by_the_models_scores(cross_encoder: Path, embedder: Bert, tmp_path: Path) -> None:
    documents = [document(f"{n}", f"the list {'bucket ' * n}") for n in range(8)]
    root = cross_encoder.parents[2]
    rerank = {"folder": "data/assets/reranker", "min_score": 0.0}
    folder = write_index(tmp_path / "index", embedder, documents, rerank=rerank)
    with Retriever.open(folder, embedder, tmp_path / "stores", root) as retriever:
        assert retriever.modes == ("vector", "keyword", "hybrid", "rerank")
        hits = retriever.search("the list", 20, mode="rerank")
        assert {hit.passage for hit in hits} == {hit.passage for hit in retriever.search("the list", 20, mode="hybrid")}
        scores = Reranker(cross_encoder).scores("the list", [hit.passage.text for hit in hits])
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
        assert all(0 < score < 1 for score in scores)


def test_what_is_no_cross_encoder_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"there is no model in .*rerank\.folder"):
        Reranker(tmp_path)
    with pytest.raises(SmeltError, match="is no cross-encoder"):
        Reranker(plain)
