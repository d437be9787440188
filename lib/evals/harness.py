"""lm-evaluation-harness's model, with the questions of a task packed: a question is read once for all of its choices.

The harness reads a question anew with each choice, pads rows to the longest, and computes the logits of every token.
Here the questions of a row stand one behind the other, each followed by its choices; a mask lets a choice see its
question and itself alone, and positions go on from the question for each of them. Scores are the same within rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedConfig

from lib.evals.language_model import LanguageModel

_ROW_TOKENS = 512  # more make attention dear, which looks at all of a row; fewer, and matrix products get small
_MAX_TOKENS = 4096  # of a question with an answer

Group = tuple[list[int], list[list[int]]]  # tokens of a question, and of each of its choices


def harness_model(lm: LanguageModel, batch_rows: int) -> HFLM:
    """`lm` for the harness; `batch_rows` rows are generated, or where packing does not serve scored, together."""
    kind = Packed if _attends_to_all(lm.model.config) else HFLM
    # Not lm.window: the harness fails on an answer longer than that, and rotary positions go on beyond it.
    return kind(
        pretrained=lm.model, tokenizer=lm.tokenizer, max_length=_MAX_TOKENS, batch_size=batch_rows, backend="causal"
    )


def _attends_to_all(config: PreTrainedConfig) -> bool:
    """Whether every layer sees all that comes before: a mask of our own would undo a sliding window, and recurrent
    layers know no mask."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)


class Packed(HFLM):
    """HFLM whose log likelihoods are those of packed questions."""

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """For each (_, question, choice): the log likelihood of the choice, and whether it is the greedy one."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, (_, question, _choice) in enumerate(requests):
            places.setdefault(tuple(question), []).append(place)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for row in _rows(list(places.items()), requests):
            groups = []
            for question, several in row:
                choices = [requests[place][2] for place in several]
                room = self.max_length + 1 - max(map(len, choices))
                groups.append((list(question[-room:]), choices))
            scores = self._score(groups)
            for place in (place for _, several in row for place in several):
                found[place] = next(scores)
        return found

    def _score(self, groups: Sequence[Group]) -> Iterator[tuple[float, bool]]:
        """The scores of all choices of all groups, which make one row of T tokens."""
        tokens, positions, spans, scored = [], [], [], []
        for question, choices in groups:
            start = len(tokens)
            tokens += question
            positions += range(len(question))
            end = len(tokens)
            spans.append((start, end))
            for choice in choices:
                begin = len(tokens)
                tokens += choice[:-1]  # its last token is predicted, and predicts nothing
                positions += range(len(question), len(question) + len(choice) - 1)
                spans.append((begin, len(tokens)))
                scored.append(([end - 1, *range(begin, len(tokens))], choice, (start, end)))
        seen_TT = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
        for begin, end in spans:
            seen_TT[begin:end, begin:end] = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
        for places, _, (start, end) in scored:
            if len(places) > 1:
                seen_TT[places[1] : places[-1] + 1, start:end] = True
        dtype = self.model.dtype
        mask_TT = torch.zeros(seen_TT.shape, dtype=dtype).masked_fill(~seen_TT, torch.finfo(dtype).min)
        keep = torch.tensor([place for places, _, _ in scored for place in places])
        with torch.inference_mode():
            logits_KV = self.model(
                input_ids=torch.tensor([tokens], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                attention_mask=mask_TT[None, None].to(self.device),
                logits_to_keep=keep.to(self.device),
                use_cache=False,
            ).logits[0]
            targets_K = torch.tensor([token for _, choice, _ in scored for token in choice], device=self.device)
            logs_K = -torch.nn.functional.cross_entropy(logits_KV.float(), targets_K, reduction="none")
            greedy_K = logits_KV.argmax(-1) == targets_K
        sizes = [len(choice) for _, choice, _ in scored]
        for logs, greedy in zip(logs_K.double().cpu().split(sizes), greedy_K.cpu().split(sizes), strict=True):
            yield logs.sum().item(), bool(greedy.all())


def _rows(
    places: Sequence[tuple[tuple[int, ...], list[int]]],
    requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
) -> Iterator[list[tuple[tuple[int, ...], list[int]]]]:
    """Questions in rows of at most _ROW_TOKENS with their choices, one at least."""
    row: list[tuple[tuple[int, ...], list[int]]] = []
    size = 0
    for question, several in places:
        tokens = len(question) + sum(len(requests[place][2]) - 1 for place in several)
        if row and size + tokens > _ROW_TOKENS:
            yield row
            row, size = [], 0
        row.append((question, several))
        size += tokens
    if row:
        yield row
