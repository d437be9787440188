"""The server under load, what it costs beside llama-cpp-python alone, and how soon an answer from documents begins.

    make bench-serve [ARGS="--model FILE.gguf --only load overhead documents"]

load: 1,000 requests of 32 clients at the same time, drawn by a seed: answers whole and streamed, by themselves and from
the documents, clients that leave, malformed bodies, prompts that are too long, wrong keys. Every answer has to be, to
the letter, the one that its request got when it was asked alone. Memory is looked at every 100 requests.

overhead: seconds a token of the server's stream beside Llama.generate and Llama.create_completion(stream=True) in this
process, alternating; the median of --rounds.

documents: seconds to the first token with 10,000 passages (of random vectors, so that only their number counts) and
without, for questions that have not been asked before.

Prints one JSON object a part. The server and this program share the cores, so run it on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np

from lib.params.load import load as load_params
from lib.rag.bert import Bert
from lib.rag.build import facts
from lib.rag.index import Index, Indexed
from lib.rag.passage import Passage
from lib.serve.model import ServedModel
from lib.serve.terminal import INDEX, MODELS, default_model
from tests.serve.running import Running

ROOT = Path(__file__).parents[2]
KEY = "sk-of-the-benchmark"
GOOD = {"Authorization": f"Bearer {KEY}"}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTIONS = ["How do I list my buckets?", "What is a queue?", "Delete a user.", "How do I copy a file?", "Say hello.",
             "Which regions are there?", "How do I create a table?", "Show the policy of a role.", "What is a volcano?",
             "How do I stop an instance?", "Write a poem.", "How do I see my costs?"]  # fmt: skip
# Of 1,000 requests.
KINDS = {"streamed": 350, "whole": 200, "text": 100, "documents": 120, "leaves": 90, "malformed": 60, "too long": 40,
         "wrong key": 40}  # fmt: skip
MALFORMED = [b"", b"{", b"[]", b"\xff\xfe", b"[" * 50_000, b'{"model": 7}', b'{"model": "MODEL", "messages": []}',
             b'{"model": "MODEL", "messages": [{"role": "user", "content": "a"}], "temperature": "hot"}',
             b'{"model": "MODEL", "messages": [{"role": "user", "content": "a"}], "tools": [{}]}']  # fmt: skip


class Client:
    """Asks the server, and knows the answers that are right."""

    def __init__(self, url: str, name: str, documents: bool) -> None:
        self.name, self.documents = name, documents
        self.http = httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=64))
        self.right: dict[str, Any] = {}

    def request(self, kind: str, chance: random.Random) -> dict[str, Any]:
        question, tokens = chance.choice(QUESTIONS), chance.choice([4, 16, 40])
        if kind == "text":
            return {"model": self.name, "prompt": question, "max_tokens": tokens}
        model = f"{self.name}-docs" if kind == "documents" and self.documents else self.name
        messages = [{"role": "user", "content": question}]
        if model == self.name and chance.random() < 0.4:  # a conversation that goes on
            messages = [*messages, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And then?"}]
        more = {"temperature": 0.8, "seed": chance.randrange(3)} if chance.random() < 0.3 else {}
        return {"model": model, "messages": messages, "max_tokens": tokens, **more}

    async def answer(self, body: dict[str, Any], streamed: bool) -> str:
        """Text and all that came with it that has to be the same every time."""
        path = CHAT if "messages" in body else TEXT
        if not streamed:
            response = await self.http.post(path, json=body, headers=GOOD)
            response.raise_for_status()
            whole = response.json()
            (choice,) = whole["choices"]
            text = choice["message"]["content"] if path == CHAT else choice["text"]
            return json.dumps([text, choice["finish_reason"], whole.get("passages")])
        text, finish, passages = "", None, None
        async for chunk in self.chunks(body | {"stream": True}):
            (choice,) = chunk["choices"]
            text += choice["delta"].get("content", "") if path == CHAT else choice["text"]
            finish, passages = choice["finish_reason"] or finish, chunk.get("passages", passages)
        return json.dumps([text, finish, passages])

    async def chunks(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        path = CHAT if "messages" in body else TEXT
        async with self.http.stream("POST", path, json=body, headers=GOOD) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])

    async def once(self, kind: str, chance: random.Random) -> str:
        """One request of a kind; "right", or what was wrong."""
        if kind == "wrong key":
            response = await self.http.post(CHAT, json={}, headers={"Authorization": f"Bearer {chance.random()}"})
            return "right" if response.status_code == 401 else f"{response.status_code} for a wrong key"
        if kind == "malformed":
            content = chance.choice(MALFORMED).replace(b"MODEL", self.name.encode())
            headers = {**GOOD, "Content-Type": "application/json"}
            response = await self.http.post(CHAT, content=content, headers=headers)
            return "right" if response.status_code == 400 else f"{response.status_code} for a malformed body"
        if kind == "too long":
            body = {"model": self.name, "messages": [{"role": "user", "content": "too long " * 20_000}]}
            response = await self.http.post(CHAT, json=body, headers=GOOD)
            right = response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"
            return "right" if right else f"{response.status_code} for a long prompt"
        body = self.request(kind, chance)
        if kind == "leaves":
            return await self.leave(body, chance)
        given = await self.answer(body, streamed=kind == "streamed" or chance.random() < 0.5)
        return "right" if given == self.right[json.dumps(body)] else f"another answer to {body}"

    async def leave(self, body: dict[str, Any], chance: random.Random) -> str:
        """Go away while waiting, or in the middle of the answer."""
        if chance.random() < 0.5:
            with contextlib.suppress(httpx.TimeoutException):
                await self.http.post(CHAT, json=body, headers=GOOD, timeout=chance.random() * 0.2)
            return "right"
        left = chance.randrange(1, 4)
        async for _ in self.chunks(body | {"stream": True}):
            left -= 1
            if not left:
                break
        return "right"


def resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


async def load(running: Running, name: str, documents: bool, requests: int, clients: int, seed: int) -> dict[str, Any]:
    kinds = [kind for kind, share in KINDS.items() for _ in range(round(share * requests / 1000))]
    random.Random(seed).shuffle(kinds)
    # Drawn anew for each request, from few: so that each can be asked alone first.
    draws = [random.Random(f"{seed} {number % 150}") for number in range(len(kinds))]
    client = Client(running.url, name, documents)
    for kind, number in {(kind, number % 150) for number, kind in enumerate(kinds)}:
        if kind in ("streamed", "whole", "text", "documents"):
            body = client.request(kind, random.Random(f"{seed} {number}"))
            client.right.setdefault(json.dumps(body), await client.answer(body, streamed=False))
    memory, outcomes, done = [resident(running.process.pid)], Counter(), 0
    waiting = asyncio.Queue()
    for entry in zip(kinds, draws, strict=True):
        waiting.put_nowait(entry)

    async def work() -> None:
        nonlocal done
        while not waiting.empty():
            kind, chance = waiting.get_nowait()
            try:
                outcome = await client.once(kind, chance)
            except httpx.HTTPError as error:
                outcome = f"{kind}: {type(error).__name__} {error}"
            outcomes[outcome if outcome != "right" else f"right: {kind}"] += 1
            done += 1
            if done % 100 == 0:
                memory.append(resident(running.process.pid))

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    seconds = time.perf_counter() - began
    await asyncio.to_thread(running.wait_until, lambda: running.metric("smelt_requests_waiting") == 0)
    return {
        "requests": done, "clients": clients, "seconds": round(seconds, 1), "different answers": len(client.right),
        "outcomes": dict(outcomes), "wrong": sum(n for key, n in outcomes.items() if not key.startswith("right")),
        "memory_mib": [round(value, 1) for value in memory], "alive": running.process.poll() is None,
    }  # fmt: skip


def overhead(running: Running, path: Path, name: str, context: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds a token, between the first and the last of an answer."""
    model = ServedModel(path, context, seed=0)
    tokens = min(tokens, model.context - 40)
    llama, measured = model._llama, {"generate": [], "create_completion": [], "server": []}

    def timed(stream: Any) -> float:
        began = count = 0.0
        for count, _ in enumerate(stream):
            if not count:
                began = time.perf_counter()
        return (time.perf_counter() - began) / count

    def generated(ids: list[int]) -> Any:
        llama.reset()
        for _, token in zip(range(tokens), llama.generate(ids, temp=0.0), strict=False):
            if llama_cpp.llama_vocab_is_eog(model._vocab, token):
                return
            yield token

    # The question whose answer is the longest.
    ids = max((model.encode_text(question) for question in QUESTIONS), key=lambda ids: len(list(generated(ids))))
    body = {
        "model": name, "prompt": ids, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}
    }  # fmt: skip

    def completed() -> Any:
        llama.reset()
        return llama.create_completion(ids, max_tokens=tokens, temperature=0.0, stream=True)

    def served() -> float:
        """Chunks hold several tokens at times: the clock stops at the last, and the usage says how many there were."""
        with httpx.stream("POST", running.url + TEXT, json=body, headers=GOOD, timeout=600) as response:
            began = last = 0.0
            count = 0
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    if '"usage"' in line:
                        count = json.loads(line[6:])["usage"]["completion_tokens"]
                    else:
                        last = time.perf_counter()
                        began = began or last
            return (last - began) / (count - 1)

    for _ in range(rounds):
        measured["generate"].append(timed(generated(ids)))
        measured["server"].append(served())
        measured["create_completion"].append(timed(completed()))
    median = {name: statistics.median(values) for name, values in measured.items()}
    return {
        "tokens": len(list(generated(ids))),
        "milliseconds_a_token": {name: round(1000 * value, 3) for name, value in median.items()},
        "fastest": {name: round(1000 * min(values), 3) for name, values in measured.items()},
        "over_generate": round(median["server"] / median["generate"] - 1, 4),
        "over_create_completion": round(median["server"] / median["create_completion"] - 1, 4),
    }


def write_passages(folder: Path, embedder: Bert, count: int) -> None:
    """Passages of random words, 150 of them each, with vectors of random directions."""
    draw, chance = np.random.default_rng(0), random.Random(0)
    words = [w.strip("?.,").lower() for w in " ".join(QUESTIONS).split()]
    settings = load_params(ROOT / "params.yaml").index.model_copy(update={"min_similarity": -1.0})
    index = Index.create(folder, facts(settings, embedder))
    with index.change() as change:
        for number in range(count):
            name, text = f"made/{number}", " ".join(chance.choices(words, k=150))
            vector = draw.normal(size=(1, embedder.dimension)).astype(np.float32)
            passage = Passage(f"{name}:0", name, "made", "", 0, len(text), text)
            change.put(name, Indexed("made", name, None), [passage], vector / np.linalg.norm(vector))
    index.close()


def first_token(url: str, model: str, question: str) -> float:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 8, "stream": True}
    began = time.perf_counter()
    with httpx.stream("POST", url + CHAT, json=body, headers=GOOD, timeout=600) as response:
        for line in response.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return time.perf_counter() - began
    raise AssertionError(f"no text: {question}")


def from_documents(
    models: Path, path: Path, name: str, arguments: list[str], passages: int, rounds: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        shutil.copytree(models / "data/assets/minilm", home / "data/assets/minilm")
        write_passages(home / "models/index", Bert(home / "data/assets/minilm", workers=1), passages)
        with Running(home, "--model", str(path), *arguments, keys=KEY) as running:
            times: dict[str, list[float]] = {name: [], f"{name}-docs": []}
            for round_ in range(rounds + 1):
                for model, measured in times.items():
                    took = first_token(running.url, model, f"{QUESTIONS[round_ % len(QUESTIONS)]} ({round_})")
                    if round_:  # the first loads what is loaded once
                        measured.append(took)
    median = {model: statistics.median(values) for model, values in times.items()}
    return {
        "passages": passages,
        "milliseconds_to_the_first_token": {model: round(1000 * value, 1) for model, value in median.items()},
        "slowest": {model: round(1000 * max(values), 1) for model, values in times.items()},
        "more_with_documents_ms": round(1000 * (median[f"{name}-docs"] - median[name]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the exported one")
    parser.add_argument("--home", type=Path, default=ROOT, help="where models/ and data/ are; default: this repository")
    parser.add_argument("--only", nargs="+", choices=["load", "overhead", "documents"])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    home = options.home.resolve()
    path = (options.model or default_model(home / MODELS)).resolve()
    parts = options.only or ["load", "overhead", "documents"]
    arguments = ["--name", "model", "--context", str(options.context)]
    if {"load", "overhead"} & set(parts):
        with Running(home, "--model", str(path), *arguments, keys=KEY) as running:
            if "load" in parts:
                outcome = asyncio.run(
                    load(running, "model", (home / INDEX).exists(), options.requests, options.clients, options.seed)
                )
                print(json.dumps({"part": "load", "model": path.name, **outcome}, indent=1), flush=True)
            if "overhead" in parts:
                outcome = overhead(running, path, "model", options.context, options.tokens, options.rounds)
                print(json.dumps({"part": "overhead", "model": path.name, **outcome}, indent=1), flush=True)
    if "documents" in parts:
        outcome = from_documents(home, path, "model", arguments, options.passages, options.rounds)
        print(json.dumps({"part": "documents", "model": path.name, **outcome}, indent=1), flush=True)


if __name__ == "__main__":
    main()
