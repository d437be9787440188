"""What the server counts and times, in Prometheus' format. Labels are names of ours, never a client's text."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One server's.

    Args:
        waiting: gives the number of requests that are answered or wait for it.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.responses = Counter("smelt_responses", "HTTP responses", ["route", "status"], registry=registry)
        self.prompt_tokens = Counter("smelt_prompt_tokens", "Tokens read", ["model"], registry=registry)
        self.answer_tokens = Counter("smelt_answer_tokens", "Tokens written", ["model"], registry=registry)
        self.left = Counter("smelt_clients_left", "Clients that left before their answer ended", registry=registry)
        self.busy = Counter("smelt_queue_full", "Requests refused because the queue was full", registry=registry)
        self.first = Histogram(
            "smelt_first_token_seconds", "From the request to the first piece of its answer", ["model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.whole = Histogram(
            "smelt_answer_seconds", "From the request to the end of its answer", ["model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.prepared = Histogram(
            "smelt_prepare_seconds", "Rendering, tokenizing and, for documents, retrieval", ["model"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        Gauge("smelt_requests_waiting", "Requests answered or waiting for it", registry=registry).set_function(waiting)

    def text(self) -> bytes:
        return generate_latest(self._registry)
