"""The GGUF file against two independent readers of the same model: transformers and llama.cpp."""

import argparse
import hashlib
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib.export import gguf
from lib.export.lineage import Lineage, read
from lib.export.llama import Reader
from lib.pipeline.errors import SmeltError
from lib.tokenizer.chat_template import encode_text
from tests.export.conftest import MODELS, VOCAB_SIZE

# llama.cpp multiplies F16 weights with activations rounded to F16. On logits with a standard deviation of 5, the
# largest difference was 0.016 and the root of the mean square 0.003; one wrong tensor makes them several units.
LARGEST, MEAN_SQUARE = 0.04, 0.01**2

CALIBRATION = torch.randint(4, VOCAB_SIZE, (2, 100), generator=torch.Generator().manual_seed(9)).tolist()
CHAT = [
    {"role": "system", "content": "Answer with one command."},
    {"role": "user", "content": "  How do I list 12 buckets?\n\nI'd like JSON — s'il te plaît.  "},
    {"role": "assistant", "content": "aws s3api list-buckets --max-items 12"},
    {"role": "user", "content": "谢谢 👍🏽"},
]
TEXTS = [
    "",
    " ",
    "a\n\n\n  b\r\n\tc   ",
    "1234567890 3.14e-10 ١٢٣ Ⅷ ½",
    "I'll, WE'VE, don'T, 'tis, it''s, O’Neill's",
    "你好，世界。日本語のテキスト 한국어",
    "👩‍👩‍👧‍👦 🇩🇪 ☕️ zero\u200bwidth \u00a0 nbsp\u3000wide",
    "Größe naïve Straße Ångström Ελληνικά Привет עברית العربية हिन्दी ไทย",
    "def f(x):\n    return {'a': x[0]**2, \"b\": ~x}  # !!! ...---===>>>\n\n\n\treturn",
    "<|im_end|><|endoftext|> <|im_start|>system\nforged",
    "\x00\x01\x7f\ufeff\ufffd",
]


def read_keys(path: Path) -> dict:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load(path: Path, **options: object) -> llama_cpp.Llama:
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False, **options)


@pytest.fixture(scope="module")
def exports(
    make_model: Callable[[str], Path], lineage: Lineage, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Path]]:
    made: dict[str, dict[str, Path]] = {}

    def export(kind: str) -> dict[str, Path]:
        if kind not in made:
            folder = tmp_path_factory.mktemp("gguf") / "out"
            made[kind] = gguf.export(
                make_model(kind), folder, "tiny", "F16", ["Q8_0", "Q4_K_M"], CALIBRATION, lineage, 2
            )
        return made[kind]

    return export


@pytest.mark.parametrize("kind", MODELS)
def test_logits_agree_with_transformers(kind: str, make_model: Callable, exports: Callable) -> None:
    ids = torch.randint(4, VOCAB_SIZE, (1, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(make_model(kind))(ids).logits[0].numpy()
    model = load(exports(kind)["F16"], logits_all=True)
    model.eval(ids[0].tolist())
    difference = np.array(model.scores[: ids.shape[1]]) - expected
    assert expected.std() > 4
    assert np.abs(difference).max() < LARGEST
    assert np.square(difference).mean() < MEAN_SQUARE


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_greedy_continuations_are_identical(kind: str, make_model: Callable, exports: Callable) -> None:
    """64 tokens, for five prompts along which transformers' two best tokens are further apart than the tolerance."""
    ids = torch.randint(4, VOCAB_SIZE, (24, 8), generator=torch.Generator().manual_seed(1))
    reference = AutoModelForCausalLM.from_pretrained(make_model(kind))
    margins = torch.full((len(ids),), torch.inf)
    cache = None
    with torch.no_grad():
        for _ in range(64):
            output = reference(ids if cache is None else ids[:, -1:], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            best = output.logits[:, -1].topk(2)
            margins = margins.minimum(best.values[:, 0] - best.values[:, 1])
            ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    clear = ids[margins > 2 * LARGEST][:5].tolist()
    assert len(clear) == 5

    model = load(exports(kind)["F16"])
    for expected in clear:
        model.reset()
        tokens = expected[:8]
        for token in model.generate(tokens[:], temp=0.0):
            tokens.append(token)
            if len(tokens) == len(expected):
                break
        assert tokens == expected


@pytest.mark.parametrize("kind", MODELS)
def test_quantised_files_run_and_keep_what_they_can(kind: str, exports: Callable) -> None:
    paths = exports(kind)
    ids = torch.randint(4, VOCAB_SIZE, (64,), generator=torch.Generator().manual_seed(2)).tolist()

    def logits(path: Path) -> np.ndarray:
        model = load(path, logits_all=True)
        model.eval(ids)
        return np.array(model.scores[: len(ids)])

    full = logits(paths["F16"])
    agreement = {kind: np.corrcoef(full.ravel(), logits(path).ravel())[0, 1] for kind, path in paths.items()}
    assert agreement["Q8_0"] > 0.999
    assert 0.97 < agreement["Q4_K_M"] < agreement["Q8_0"]
    assert paths["Q4_K_M"].stat().st_size < paths["Q8_0"].stat().st_size < paths["F16"].stat().st_size


def test_tensors_have_the_types_their_names_promise(exports: Callable) -> None:
    types = {
        kind: {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
        for kind, path in exports("qwen3").items()
    }
    for tensors in types.values():
        assert {tensors[name] for name in tensors if "norm" in name} == {"F32"}
    assert types["F16"]["blk.0.attn_q.weight"] == types["F16"]["output.weight"] == "F16"
    assert types["Q8_0"]["blk.0.attn_q.weight"] == "Q8_0"
    assert types["Q4_K_M"]["blk.0.attn_q.weight"] == "Q4_K"


@pytest.mark.parametrize("kind", MODELS)
def test_keys(kind: str, exports: Callable, lineage: Lineage) -> None:
    paths = exports(kind)
    keys = read_keys(paths["F16"])
    architecture = kind.removesuffix("_tied")
    assert keys["general.architecture"] == architecture
    assert keys["general.name"] == "tiny"
    assert keys["general.license"] == "Apache-2.0 AND CC-BY-SA-4.0 AND (MIT OR BSD-3-Clause)"
    assert keys[f"{architecture}.rope.freq_base"] == 50000.0
    assert keys[f"{architecture}.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert keys[f"{architecture}.attention.head_count_kv"] == 2
    assert keys[f"{architecture}.attention.key_length"] == (128 if architecture == "qwen3" else 64)
    assert keys[f"{architecture}.context_length"] == 256
    names = [tensor.name for tensor in GGUFReader(paths["F16"]).tensors]
    assert ("output.weight" in names) == (not kind.endswith("_tied"))
    file_types = [read_keys(path)["general.file_type"] for path in paths.values()]
    assert file_types == [1, 7, 15]
    for path in paths.values():
        assert read(path) == lineage
    weighed = {key: value for key, value in read_keys(paths["Q4_K_M"]).items() if "imatrix" in key}
    assert weighed == {
        "quantize.imatrix.dataset": "data/mix/val",
        "quantize.imatrix.entries_count": 14,  # seven matrices of each of two blocks
        "quantize.imatrix.chunks_count": len(CALIBRATION),
    }


def test_tokens_are_those_of_tokenizers_and_transformers(make_model: Callable, exports: Callable) -> None:
    folder = make_model("qwen3")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(folder)
    model = load(exports("qwen3")["F16"], vocab_only=True)
    for text in TEXTS:
        text = unicodedata.normalize("NFC", text)
        expected = tokenizer.encode(text).ids
        assert auto(text)["input_ids"] == expected
        assert model.tokenize(text.encode(), add_bos=False, special=True) == expected
        # As documents and messages are encoded: a special token's name is just text.
        assert model.tokenize(text.encode(), add_bos=False, special=False) == encode_text(tokenizer, [text])[0]
        assert model.detokenize(expected, special=True).decode() == text


def test_llama_cpp_leaves_nfc_to_the_caller(make_model: Callable, exports: Callable) -> None:
    """The one known difference, stated in lib/export/vocabulary.py. If this fails, llama.cpp has learned it."""
    tokenizer = Tokenizer.from_file(str(make_model("qwen3") / "tokenizer.json"))
    model = load(exports("qwen3")["F16"], vocab_only=True)
    decomposed = unicodedata.normalize("NFD", "Größe")
    assert model.tokenize(decomposed.encode(), add_bos=False) != tokenizer.encode(decomposed).ids


def test_chat_renders_and_tokenises_the_same_everywhere(make_model: Callable, exports: Callable) -> None:
    folder = make_model("qwen3")
    auto = AutoTokenizer.from_pretrained(folder)
    rendered = auto.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = auto.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    model = load(exports("qwen3")["Q8_0"], vocab_only=True)
    template = model.metadata["tokenizer.chat_template"]
    assert Jinja2ChatFormatter(template, eos_token="", bos_token="")(messages=CHAT).prompt == rendered
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(rendered).ids == ids
    assert model.tokenize(rendered.encode(), add_bos=False, special=True) == ids
    # add_bos is what the file says when nobody asks.
    assert model.metadata["tokenizer.ggml.add_bos_token"] == "false"


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
WHOLE = pre_tokenizers.ByteLevel(add_prefix_space=False)
CUTS = {
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WHOLE]),
    "gpt-2": WHOLE,
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("cut", CUTS)
def test_text_is_cut_as_other_bases_cut_it(cut: str, make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    """Their pre-tokenizers, each found by what it does: llama.cpp reads the same tokens by the name that is written."""
    special = ["<|begin|>", "<|stop|>"]
    tokenizer = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    tokenizer.pre_tokenizer, tokenizer.decoder = CUTS[cut], decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbers = " ".join(str(number) for number in range(100, 400))
    tokenizer.train_from_iterator([Path(argparse.__file__).read_text(), numbers, *TEXTS], trainer)
    if cut == "llama-bpe":  # as Llama 3's own, which begins every text with a token
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
        )
    model = copy(make_model("llama_tied"), tmp_path)
    tokenizer.save(str(model / "tokenizer.json"))
    edit(model / "tokenizer_config.json", bos_token="<|begin|>", eos_token="<|stop|>", pad_token="<|stop|>")
    path = gguf.export(model, tmp_path / "out", "tiny", "F16", [], [], lineage, 1)["F16"]
    read = load(path, vocab_only=True)
    assert read.metadata["tokenizer.ggml.pre"] == cut
    assert read.metadata["tokenizer.ggml.add_bos_token"] == str(cut == "llama-bpe").lower()
    assert (read.token_bos(), read.token_eos()) == (0, 1)
    for text in [*TEXTS, "  12 345", "a1b22 c  7", numbers]:
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert read.tokenize(text.encode(), add_bos=False, special=True) == expected, text


def test_special_tokens(exports: Callable) -> None:
    model = load(exports("qwen3")["F16"], vocab_only=True)
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    assert llama_cpp.llama_vocab_eos(vocabulary) == llama_cpp.llama_vocab_eot(vocabulary) == 2
    assert llama_cpp.llama_vocab_pad(vocabulary) == 3
    ends = [token for token in range(VOCAB_SIZE) if llama_cpp.llama_vocab_is_eog(vocabulary, token)]
    assert ends == [0, 2]
    assert [token for token in range(VOCAB_SIZE) if llama_cpp.llama_vocab_is_control(vocabulary, token)] == [0, 1, 2, 3]


def test_equal_inputs_give_equal_bytes(
    make_model: Callable, exports: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    """In another folder and with another number of threads."""
    again = gguf.export(
        make_model("qwen3"), tmp_path / "elsewhere", "tiny", "F16", ["Q8_0", "Q4_K_M"], CALIBRATION, lineage, 1
    )
    assert {kind: sha256(path) for kind, path in again.items()} == {
        kind: sha256(path) for kind, path in exports("qwen3").items()
    }


def test_unused_rows_of_the_embedding_are_padding(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    model = copy(make_model("qwen3"), tmp_path)
    weights = load_file(model / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.cat([weights[name], torch.zeros(8, 256)])
    save_file(weights, model / "model.safetensors")
    edit(model / "config.json", vocab_size=VOCAB_SIZE + 8)
    path = gguf.export(model, tmp_path / "out", "tiny", "F16", [], [], lineage, 1)["F16"]
    assert load(path, vocab_only=True).n_vocab() == VOCAB_SIZE + 8


def copy(model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "model.norm.weight.*float32"), (7e4, r"layers.1.mlp.up_proj.weight.*float16")]
)
def test_weights_that_do_not_fit_are_refused(
    value: float, words: str, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    model = copy(make_model("qwen3"), tmp_path)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight" if value != value else "model.layers.1.mlp.up_proj.weight"].view(-1)[3] = value
    save_file(weights, model / "model.safetensors")
    with pytest.raises(SmeltError, match=words):
        gguf.export(model, tmp_path / "out", "tiny", "F16", [], [], lineage, 1)


STRETCHED = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", STRETCHED)
def test_positions_are_stretched_as_in_transformers(
    kind: str, make_model: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    """As Llama 3.1 and Qwen with YaRN have them, beyond the length that they were pretrained with."""
    model = copy(make_model("llama"), tmp_path)
    edit(model / "config.json", rope_parameters={"rope_theta": 50000.0, **STRETCHED[kind]})
    ids = torch.randint(4, VOCAB_SIZE, (1, 200), generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(model)(ids).logits[0].numpy()
        plain = AutoModelForCausalLM.from_pretrained(make_model("llama"))(ids).logits[0].numpy()
    assert np.abs(expected - plain).max() > 0.5
    path = gguf.export(model, tmp_path / "out", "tiny", "F16", [], [], lineage, 1)["F16"]
    with Reader(path, 256, 1) as reader:
        difference = reader.read(ids[0].tolist(), every=True) - expected
    assert np.abs(difference).max() < LARGEST
    assert np.square(difference).mean() < MEAN_SQUARE


def test_wide_weights_are_written_as_bf16(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    model = copy(make_model("qwen3"), tmp_path)
    weights = {name: weight.bfloat16() for name, weight in load_file(model / "model.safetensors").items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = 1e5  # beyond float16
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    path = gguf.export(model, tmp_path / "out", "tiny", "BF16", ["Q8_0"], [], lineage, 1)["BF16"]
    assert path.name == "tiny-BF16.gguf"
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == "BF16"
    stored = dequantize(tensors["blk.1.ffn_up.weight"].data, tensors["blk.1.ffn_up.weight"].tensor_type)
    assert np.array_equal(stored, weights["model.layers.1.mlp.up_proj.weight"].float().numpy())
    ids = torch.randint(4, VOCAB_SIZE, (1, 64), generator=torch.Generator().manual_seed(7))
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for module in reference.modules():
        if isinstance(module, torch.nn.Linear):  # llama.cpp rounds what BF16 weights are multiplied with to BF16 too
            module.register_forward_pre_hook(lambda _, arguments: (arguments[0].bfloat16().float(),))
    with torch.no_grad():
        expected = reference(ids).logits[0].numpy()
    with Reader(path, 64, 1) as reader:
        found = reader.read(ids[0].tolist(), every=True)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert read_keys(tmp_path / "out/tiny-Q8_0.gguf")["general.file_type"] == 7


def test_weights_in_several_files_are_one_model(
    make_model: Callable, exports: Callable, lineage: Lineage, tmp_path: Path
) -> None:
    model = copy(make_model("qwen3"), tmp_path)
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        save_file({name: weights[name] for name in names}, model / f"model-0000{number + 1}-of-00002.safetensors")
    path = gguf.export(model, tmp_path / "out", "tiny", "F16", [], [], lineage, 1)["F16"]
    assert sha256(path) == sha256(exports("qwen3")["F16"])


def test_directories_that_hold_no_whole_model_are_named(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    model = copy(make_model("qwen3"), tmp_path)

    def refuse(words: str) -> None:
        with pytest.raises(SmeltError, match=words):
            gguf.export(model, tmp_path / "out", "tiny", "F16", [], [], lineage, 1)

    content = (model / "model.safetensors").read_bytes()
    for length in (4, 100, len(content) - 10):
        (model / "model.safetensors").write_bytes(content[:length])
        refuse(r"model\.safetensors is not a whole safetensors file")
    (model / "model.safetensors").unlink()
    refuse("is a model directory without weights")
    (model / "config.json").write_text("{")
    refuse(r"config\.json is not JSON")
    (model / "config.json").unlink()
    refuse(r"has no config\.json")


def test_files_that_are_no_whole_gguf_are_named(exports: Callable, tmp_path: Path) -> None:
    content = exports("qwen3")["Q8_0"].read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1000):
        (tmp_path / "cut.gguf").write_bytes(content[:length])
        with pytest.raises(SmeltError, match=r"llama\.cpp cannot load .*cut\.gguf"):
            Reader(tmp_path / "cut.gguf", 64, 1)


def test_other_models_and_tokenizers_are_refused(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    model = copy(make_model("qwen3"), tmp_path)
    edit(model / "config.json", vocab_size=VOCAB_SIZE - 1)
    with pytest.raises(SmeltError, match=f"ids up to {VOCAB_SIZE - 1}"):
        gguf.export(model, tmp_path / "small", "tiny", "F16", [], [], lineage, 1)
    edit(model / "config.json", vocab_size=VOCAB_SIZE, architectures=["GPT2LMHeadModel"])
    with pytest.raises(SmeltError, match="GPT2LMHeadModel"):
        gguf.export(model, tmp_path / "other", "tiny", "F16", [], [], lineage, 1)
    edit(model / "config.json", architectures=["MistralForCausalLM"], sliding_window=64)
    with pytest.raises(SmeltError, match="sliding window"):
        gguf.export(model, tmp_path / "window", "tiny", "F16", [], [], lineage, 1)
    edit(model / "config.json", architectures=["Qwen3ForCausalLM"], hidden_act="gelu")
    with pytest.raises(SmeltError, match="activation gelu"):
        gguf.export(model, tmp_path / "gelu", "tiny", "F16", [], [], lineage, 1)
    edit(model / "config.json", hidden_act="silu", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4})
    with pytest.raises(SmeltError, match="type 'dynamic'"):
        gguf.export(model, tmp_path / "rope", "tiny", "F16", [], [], lineage, 1)
    edit(model / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5e4})
    with pytest.raises(SmeltError, match="has no quantisation Q9_9"):
        gguf.export(make_model("qwen3"), tmp_path / "nine", "tiny", "F16", ["Q9_9"], [], lineage, 1)
    edit(model / "config.json", architectures=["LlamaForCausalLM"], sliding_window=None)
    with pytest.raises(SmeltError, match=r"no tensor like .*k_norm"):
        gguf.export(model, tmp_path / "llama", "tiny", "F16", [], [], lineage, 1)
    edit(model / "config.json", architectures=["Qwen3ForCausalLM"])
    edit(model / "tokenizer.json", pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "use_regex": True})
    with pytest.raises(SmeltError, match="cuts text in a way that is none of qwen2, llama-bpe, smollm, gpt-2"):
        gguf.export(model, tmp_path / "prefix", "tiny", "F16", [], [], lineage, 1)
