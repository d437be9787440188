"""Pairs of answers to one prompt, one better than the other, as rows that the loop trains on.

A pair is two documents of one row, the chosen answer's conversation and after it the rejected one's, so that a batch
may be cut between any two rows. Documents do not see each other (preferences.py), and a row holds what pairs fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.tokenizer.packing import best_fit
from lib.trainers import processes
from lib.trainers.engine import TorchEngine
from lib.trainers.loader import IGNORED

Encode = Callable[[Sequence[dict[str, str]]], tuple[list[int], list[bool]]]  # messages -> ids, mask of what is learnt
_CHUNK = 64  # pairs of one pass over the reference


class Pair(NamedTuple):
    """The conversations of a pair, and which of their tokens are the answer."""

    chosen: tuple[np.ndarray, np.ndarray]  # ids (L,), answer (L,) bool
    rejected: tuple[np.ndarray, np.ndarray]

    @property
    def answers(self) -> int:
        """Tokens of both answers."""
        return int(self.chosen[1].sum() + self.rejected[1].sum())


class PairBatch(NamedTuple):
    """B rows of T tokens. Document 2k of a row is a chosen answer with its prompt, document 2k + 1 the rejected one."""

    inputs: np.ndarray  # (B, T) int64
    labels: np.ndarray  # (B, T) int64, IGNORED everywhere but in answers
    documents: np.ndarray  # (B, T) int32
    reference: np.ndarray  # (B, T) float32: log-probability of the label under the reference model, in nats

    @property
    def counted(self) -> int:
        """Pairs: what a summed loss is divided by."""
        rows = np.arange(len(self.documents))[:, None] * (self.documents.shape[1] + 1)
        return len(np.unique((self.documents + rows)[self.labels != IGNORED])) // 2


def _encode(encode: Encode, prompt: list[dict[str, str]], answer: list[dict[str, str]]) -> tuple[np.ndarray, ...]:
    """Ids, and the mask of the last answer alone: those before it are the same in both conversations."""
    ids, mask = encode([*prompt, *answer])
    learnt = np.array(mask)
    places = np.flatnonzero(learnt)
    first = places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1]]
    learnt[:first] = False
    return np.array(ids), learnt


def read_pairs(path: Path, encode: Encode, longest: int) -> tuple[list[Pair], int]:
    """The pairs of a JSONL file whose conversations fit into `longest` tokens, and how many did not.

    A line holds `prompt`, `chosen` and `rejected`, each a list of messages (trl's conversational form).
    """
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = [Pair(*(_encode(encode, row["prompt"], row[name]) for name in ("chosen", "rejected"))) for row in rows]
    fitting = [pair for pair in found if max(len(pair.chosen[0]), len(pair.rejected[0])) <= longest]
    return fitting, len(found) - len(fitting)


class Pairs:
    """Encoded pairs. Those of a batch are packed, best fit, into rows as long as the longest of them.

    Attributes:
        reference: log-probability of each token of each pair's answers under the reference model, the chosen answer's
            first; zeros until they are known.
    """

    def __init__(self, pairs: Sequence[Pair], pad_token_id: int) -> None:
        self._pairs, self._pad = pairs, pad_token_id
        self.reference = [np.zeros(pair.answers, np.float32) for pair in pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def answers(self) -> int:
        """Tokens of all answers."""
        return sum(pair.answers for pair in self._pairs)

    def _rows_of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and length of each of these pairs."""
        lengths = np.array([sum(len(ids) - 1 for ids, _ in self._pairs[index]) for index in indices])
        return best_fit(lengths, int(lengths.max())), lengths

    def in_order(self, indices: np.ndarray) -> np.ndarray:
        """The same pairs in the order in which `rows` has their labels, row after row."""
        return indices[np.argsort(self._rows_of(indices)[0], kind="stable")]

    def rows(self, indices: np.ndarray) -> PairBatch:
        """The pairs of these numbers, packed."""
        rows_of, lengths = self._rows_of(indices)
        shape = (int(rows_of.max()) + 1, int(lengths.max()))
        inputs, labels = np.full(shape, self._pad, np.int64), np.full(shape, IGNORED, np.int64)
        documents, reference = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        places, numbers = np.zeros(len(inputs), np.int64), np.zeros(len(inputs), np.int32)
        for index, row in zip(indices, rows_of, strict=True):
            start = places[row]
            for ids, answer in self._pairs[index]:
                there = slice(places[row], places[row] + len(ids) - 1)
                inputs[row, there] = ids[:-1]
                labels[row, there] = np.where(answer[1:], ids[1:], IGNORED)
                documents[row, there] = numbers[row]
                places[row] += len(ids) - 1
                numbers[row] += 1
            whole = slice(start, places[row])
            reference[row, whole][labels[row, whole] != IGNORED] = self.reference[index]
        for row, place in enumerate(places):
            documents[row, place:] = numbers[row]
        return PairBatch(inputs, labels, documents, reference)

    def refer_to(self, engine: TorchEngine, path: Path) -> None:
        """Take the model as it is now for the reference: its log-probabilities, computed once and kept in `path`.

        Before the first step this is the model that training begins with, and in exactly the form that is trained
        (precision, 4 bits): no second model is needed, and the first margins are zero but for rounding.
        """
        known = np.load(path, allow_pickle=False) if not processes.rank() and path.exists() else None
        known = processes.tell(known)
        if known is None:
            known = processes.tell(self._computed(engine))
            if not processes.rank():
                partial = path.with_suffix(".partial")
                with open(partial, "wb") as stream:
                    np.save(stream, known, allow_pickle=False)
                partial.replace(path)
        ends = np.cumsum([pair.answers for pair in self._pairs])
        self.reference = np.split(known, ends[:-1])

    def _computed(self, engine: TorchEngine) -> np.ndarray:
        found: list[Any] = [None] * len(self)
        for start in range(0, len(self), _CHUNK):
            indices = self.in_order(np.arange(start, min(start + _CHUNK, len(self))))
            ends = np.cumsum([self._pairs[index].answers for index in indices])
            values = engine.log_probabilities(self.rows(np.sort(indices)))
            for index, part in zip(indices, np.split(values, ends[:-1]), strict=True):
                found[index] = part
        return np.concatenate(found)
