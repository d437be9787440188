"""Clients that others wrote run against the server unchanged: openai, LangChain, LlamaIndex."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

# Before their import: no counting of their users, and no look for newer versions.
os.environ.update(LANGCHAIN_TRACING_V2="false", LANGSMITH_TRACING="false", ANONYMIZED_TELEMETRY="false")

import openai
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.serve import home as made
from tests.serve.running import Running

pytestmark = pytest.mark.xdist_group("serve")
ASKED = [{"role": "user", "content": made.QUESTION}]


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny-docs"]
    assert client.models.retrieve("tiny").owned_by == "smelt"


def test_openai_chats_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASKED, seed=1, temperature=0, user="me", n=1)
    assert whole.choices[0].message.content == made.SAID
    assert whole.usage is not None
    assert whole.usage.completion_tokens == len(made.PIECES)
    again = client.chat.completions.create(model="tiny", messages=[*ASKED, whole.choices[0].message, *ASKED])
    assert again.choices[0].message.content == made.SAID
    with client.chat.completions.stream(model="tiny", messages=ASKED, logprobs=True, top_logprobs=2) as events:
        final = events.get_final_completion()
    assert final.choices[0].message.content == made.SAID
    assert final.choices[0].logprobs is not None
    assert len(final.choices[0].logprobs.content or []) == len(made.PIECES)
    chunks = client.chat.completions.create(
        model="tiny", messages=ASKED, stream=True, stream_options={"include_usage": True}, stop=[" so"]
    )
    *texts, last = list(chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in texts) == "**Yes**, it is"
    assert last.usage is not None


def test_openai_gets_citations_by_choosing_a_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny-docs", messages=ASKED, extra_body={"sources": ["docs"]})
    message = answer.choices[0].message
    (first, _) = message.annotations or []
    assert (message.content or "")[first.url_citation.start_index : first.url_citation.end_index] == "[1]"
    assert first.url_citation.title == made.TITLE
    assert answer.model_extra is not None
    assert answer.model_extra["passages"][0]["document"] == "docs/list"


def test_openai_completes_embeds_and_parses(client: openai.OpenAI) -> None:
    text = client.completions.create(model="tiny", prompt="\n", max_tokens=2, logprobs=1)
    assert text.choices[0].text == "**Yes**, it"
    vectors = client.embeddings.create(model="tiny-docs", input=["the list", "bucket"])
    assert [len(row.embedding) for row in vectors.data] == [32, 32]

    class Choice(BaseModel):
        yes: bool

    parsed = client.chat.completions.parse(model="tiny", messages=ASKED, response_format=Choice)
    assert isinstance(parsed.choices[0].message.parsed, Choice)


def test_openai_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'"):
        client.chat.completions.create(model="gpt-4", messages=ASKED)
    with pytest.raises(openai.BadRequestError, match="context") as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 2000}])
    assert caught.value.code == "context_length_exceeded"


def test_openai_asks_many_at_once(server: Running) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            calls = [client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=n + 1) for n in range(20)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == ["".join(made.PIECES[: n + 1]) for n in range(20)]


def test_langchain_chats_streams_and_embeds(server: Running) -> None:
    model = ChatOpenAI(model="tiny", base_url=f"{server.url}/v1", api_key="none", max_retries=0, temperature=0)  # type: ignore[arg-type]
    answer = model.invoke(made.QUESTION)
    assert answer.content == made.SAID
    assert answer.response_metadata["finish_reason"] == "stop"
    assert "".join(str(chunk.content) for chunk in model.stream(made.QUESTION)) == made.SAID
    assert model.invoke([HumanMessage("a"), AIMessage("b"), HumanMessage("c")]).content == made.SAID

    class Choice(BaseModel):
        """Whether it is so."""

        yes: bool

    assert isinstance(model.with_structured_output(Choice, method="json_schema").invoke("a"), Choice)
    docs = ChatOpenAI(model="tiny-docs", base_url=f"{server.url}/v1", api_key="none", max_retries=0)  # type: ignore[arg-type]
    assert str(docs.invoke(made.QUESTION).content).startswith("**Yes**, it is so [1], not  or [1].")
    embedder = OpenAIEmbeddings(
        model="tiny-docs", base_url=f"{server.url}/v1", api_key="none", check_embedding_ctx_length=False  # type: ignore[arg-type]
    )  # fmt: skip
    assert len(embedder.embed_documents(["the list", "bucket"])[1]) == 32


def test_llamaindex_chats_streams_and_embeds(server: Running) -> None:
    model = OpenAILike(
        model="tiny-docs", api_base=f"{server.url}/v1", api_key="none", is_chat_model=True, max_retries=0, max_tokens=60
    )
    answer = model.chat([ChatMessage(role="user", content=made.QUESTION)])
    assert (answer.message.content or "").startswith("**Yes**, it is so [1]")
    pieces = [piece.delta for piece in model.stream_chat([ChatMessage(role="user", content=made.QUESTION)])]
    assert "".join(piece or "" for piece in pieces) == answer.message.content
    text = OpenAILike(model="tiny", api_base=f"{server.url}/v1", api_key="none", is_chat_model=False, max_tokens=2)
    assert text.complete("\n").text == "**Yes**, it"
    embedder = OpenAILikeEmbedding(model_name="tiny-docs", api_base=f"{server.url}/v1", api_key="none")
    assert len(embedder.get_text_embedding("the list")) == 32


def test_what_clients_print_as_json_is_what_was_sent(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=ASKED)
    assert json.loads(raw.text)["choices"][0]["message"]["content"] == made.SAID
    assert raw.headers["x-content-type-options"] == "nosniff"
