import json
import random
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import llama_cpp
import numpy as np
import pytest

from lib.pipeline.errors import SmeltError
from lib.serve.model import Sampling, ServedModel, Stopped, Token
from tests.serve.tiny import write_gguf, write_reciter

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "long.gguf", context=1024)


@pytest.fixture(scope="module")
def served(path: Path) -> ServedModel:
    return ServedModel(path, 1024, seed=0)


def text(length: int, seed: int) -> list[int]:
    return [4 + number for number in random.Random(seed).choices(range(26), k=length)]


def written(model: ServedModel, ids: Sequence[int], sampling: Sampling = GREEDY, n: int = 12, **more) -> list[Token]:
    return list(model.tokens(list(ids), n, sampling, **more))


def test_greedy_answers_are_llama_cpps_own(served: ServedModel, path: Path) -> None:
    llama = llama_cpp.Llama(str(path), n_ctx=1024, verbose=False)
    for question in ("list the buckets", "why?", "a", "b"):
        ids = served.encode([{"role": "user", "content": question}])
        reference = llama.create_completion(ids, max_tokens=20, temperature=0.0)["choices"][0]["text"]
        assert b"".join(token.text for token in written(served, ids, n=20)).decode() == reference


def test_an_answer_depends_on_its_request_alone(served: ServedModel, path: Path) -> None:
    """To the last bit, whether nothing, a part or all of its prompt has been read before."""
    start = text(300, 1)
    prompts = [start, start[:200] + text(90, 2), start + text(60, 3), start[:128], start[:129], text(500, 4), start[:5]]
    fresh = [written(ServedModel(path, 1024, seed=0), ids, likeliest=3) for ids in prompts]
    order = random.Random(6)
    for _ in range(30):
        at = order.randrange(len(prompts))
        assert written(served, prompts[at], likeliest=3) == fresh[at]


def test_what_was_read_is_not_read_again(served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    evaluate = served._llama.eval
    monkeypatch.setattr(served._llama, "eval", lambda ids: (read.append(len(ids)), evaluate(ids))[1])
    start = text(300, 7)
    written(served, start, n=1)
    assert read == [128, 128, 44]
    read.clear()
    written(served, start + text(100, 8), n=1)
    assert read == [128, 16]


def test_draws_repeat_with_their_seed_and_keep_to_their_limits(served: ServedModel) -> None:
    ids = text(20, 9)

    def draw(**settings: float) -> bytes:
        return b"".join(token.text for token in written(served, ids, Sampling(temperature=2.0, **settings)))

    greedy = b"".join(token.text for token in written(served, ids))
    assert draw(seed=1) == draw(seed=1)
    assert len({draw(seed=seed) for seed in range(9)}) > 5
    for limit in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert {draw(seed=seed, **limit) for seed in range(5)} == {greedy}


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repeat_penalty": 1.9}])
def test_penalties_make_repetitions_rarer(tmp_path: Path, penalty: dict[str, float]) -> None:
    model = ServedModel(write_reciter(tmp_path / "m.gguf", ["one ", "two "], 1024, forever=True), 1024, seed=0)
    ids = model.encode([{"role": "user", "content": "?"}])

    def recited(**more: float) -> int:
        answers = (written(model, ids, Sampling(1.0, seed=seed, **more), n=60) for seed in range(10))
        return sum(token.text in (b"one ", b"two ") for answer in answers for token in answer)

    assert recited(**penalty) < recited() / 1.5


def test_probabilities_are_those_of_the_logits(served: ServedModel, path: Path) -> None:
    llama = llama_cpp.Llama(str(path), n_ctx=1024, n_batch=128, logits_all=True, verbose=False)
    ids = text(140, 10)
    answer = written(served, ids, Sampling(temperature=1.5, seed=3), likeliest=4)
    llama.eval(ids + [token.id for token in answer])
    for place, token in enumerate(answer):
        logits = np.array(llama.scores[len(ids) + place - 1], np.float64)
        known = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert token.logprob == pytest.approx(known[token.id], abs=1e-4)
        assert [value for _, value in token.likeliest] == pytest.approx(sorted(known)[::-1][:4], abs=1e-4)


def test_an_answer_that_nobody_waits_for_is_not_written(served: ServedModel) -> None:
    asked: list[int] = []

    def after(times: int) -> bool:
        asked.append(1)
        return len(asked) > times

    with pytest.raises(Stopped):
        written(served, text(500, 11), stopped=lambda: after(2))
    assert served._llama.n_tokens == 256  # two blocks were read
    asked.clear()
    tokens = served.tokens(text(5, 12), 12, GREEDY, stopped=lambda: after(2))
    assert [next(tokens), next(tokens)]
    with pytest.raises(Stopped):
        next(tokens)
    # And the next answer is the right one all the same.
    assert written(served, text(300, 1)) == written(served, text(300, 1))


SCHEMAS = [
    {"type": "object", "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 2, "maxItems": 3},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"is": {"const": 1}}}}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "reference"])
def test_answers_are_held_to_a_schema(served: ServedModel, schema: dict) -> None:
    finished = 0
    for seed in range(8):
        said = written(served, text(9, 13), Sampling(1.0, seed=seed), 300, grammar=served.grammar(schema))
        if len(said) < 300:
            jsonschema.validate(json.loads(b"".join(token.text for token in said)), schema)
            finished += 1
    assert finished > 2


def deep(levels: int) -> dict:
    return {"type": "array", "items": deep(levels - 1)} if levels else {"type": "string"}


REFUSED = {
    "elsewhere": {"$ref": "https://127.0.0.1:9/schema.json"},
    "a file": {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
    "itself": {"$ref": "#/"},
    "nowhere": {"$ref": "#/$defs/none"},
    "in a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "no end of items": {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
    "no type": {"type": "nothing of the kind"},
    "a pattern": {"type": "string", "pattern": "^(a*)*$"},
    "a bound that would be passed over": {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}},
    "more beside a choice": {"anyOf": [{"type": "string"}], "properties": {"a": {"type": "string"}}},
    "no list": {"type": "object", "required": 7},
    "no schema": {"type": "object", "properties": {"a": 7}},
    "required and not there": {"type": "object", "properties": {}, "required": ["a"]},
    "too deep": deep(400),
    "too many": {"anyOf": [{"type": "string"}] * 3000},
    "too many properties": {"type": "object", "properties": {str(n): {"type": "null"} for n in range(300)}},
}


@pytest.mark.parametrize("schema", REFUSED.values(), ids=list(REFUSED))
def test_a_schema_that_cannot_be_followed_is_refused(served: ServedModel, schema: dict) -> None:
    with pytest.raises(SmeltError, match="JSON schema"):
        served.grammar(schema)


LARGE = {
    "many properties": {"type": "object", "properties": {str(n): {"type": "null"} for n in range(100)}},
    "many bounds": {"type": "array", "items": {"anyOf": [{"type": "string", "minLength": 1999}] * 40}, "maxItems": 999},
    "anything": {"type": "object", "additionalProperties": True},
    "deep": deep(39),
}


@pytest.mark.parametrize("schema", LARGE.values(), ids=list(LARGE))
def test_the_largest_schemas_are_followed(served: ServedModel, schema: dict) -> None:
    said = written(served, text(9, 14), n=20, grammar=served.grammar(schema))
    assert said[0].text.strip()[:1] in (b"{", b"[")
