"""Make pairs of answers, one better than the other: from files, from right answers and the model's own wrong ones, or
from two answers of the model that a judge compares.

`preferences.from: null`, the default, makes none, and the stage `prefer` passes the model on as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lib.completion.endpoint import connect
from lib.evals.own_answers import CheckableTask, is_right, read_tasks
from lib.judge import calibration, control
from lib.judge.judge import Judge, Pair, Preference
from lib.pipeline.errors import SmeltError
from lib.pipeline.offline import stay_offline
from lib.pipeline.run import Run, stage
from lib.sources.pairs import read_pairs
from lib.text.preferences import Preferred, check, question, split

FILES, CHAT, MODEL = "data/pairs", "data/chat", "models/sft"
Found = tuple[Preferred, dict[str, Any]]  # a pair or a reject, and where it comes from


def sample(
    run: Run, kinds: list[str], tasks: int, max_new_tokens: int, temperature: float = 0.0, seeds: Sequence[int] = (0,)
) -> tuple[list[CheckableTask], list[list[str]]]:
    """Training tasks of these kinds, and the model's answers to them: a list for each seed."""
    stay_offline()
    import torch

    from lib.backends.select import select_backend
    from lib.evals.generation import generate
    from lib.evals.language_model import load_language_model

    asked = read_tasks(run.dep(f"{CHAT}/train.jsonl"), kinds, tasks)
    if not asked:
        raise SmeltError(
            f"{CHAT}/train.jsonl has no task of {', '.join(kinds)} to ask the model; see preferences.answers.kinds and "
            f"preferences.judge.kinds"
        )
    torch.set_num_threads(run.workers)
    backend = select_backend()
    run.observed["device"] = backend.describe()
    run.log(f"asking {MODEL} {len(asked)} training tasks")
    model, prompts = load_language_model(run.dep(MODEL), backend.device), [task.prompt for task in asked]
    return asked, [generate(model, prompts, max_new_tokens, run.progress, temperature, seed) for seed in seeds]


def from_answers(run: Run, kinds: list[str], tasks: int, max_new_tokens: int) -> Iterator[Found]:
    """The model's likeliest answers to training tasks. A right one makes no pair."""
    asked, (answers,) = sample(run, kinds, tasks, max_new_tokens)
    for number, (task, answer) in enumerate(zip(asked, answers, strict=True), start=1):
        found = check(Preferred(task.prompt, task.expected, answer))
        if is_right(answer, task.expected):
            found = Preferred([], "", "", "right_already")
        yield found, {"task": number}


def from_judge(
    run: Run, kinds: list[str], tasks: int, max_new_tokens: int, temperature: float
) -> tuple[Iterator[Found], dict[str, Any]]:
    """Two sampled answers to each training task, the one that the judge prefers first; and how good a judge it is.

    Raises:
        SmeltError: the judge does not reach judge.min_accuracy on pairs whose better answer is known.
    """
    seed, with_reference = run.param("seed"), run.param("judge.with_reference")
    with connect(run.param("judge.model"), run.root, run.log) as endpoint:
        judge = Judge(endpoint)
        accuracy = trusted(run, judge, with_reference)
        seeds = 2 * seed, 2 * seed + 1  # which no other seed has
        asked, (ones, others) = sample(run, kinds, tasks, max_new_tokens, temperature, seeds)
        found = [
            check(Preferred(task.prompt, one, other)) for task, one, other in zip(asked, ones, others, strict=True)
        ]
        pairs = [
            Pair(
                "\n\n".join(turn["content"] for turn in task.prompt),
                task.expected if with_reference else None,
                one.chosen,
                one.rejected,
            )
            for task, one in zip(asked, found, strict=True)
            if not one.reason
        ]
        verdicts = iter(list(run.progress(judge.preferences(pairs), len(pairs), " pairs")))
    if judge.stopped:
        run.log(f"the budget ended it: {judge.stopped}; what was judged until then makes pairs")
    picked = [one if one.reason else pick(one, next(verdicts, None)) for one in found]
    told = {"identity": judge.identity, "accuracy": accuracy, "stopped": judge.stopped}
    return ((one, {"task": number}) for number, one in enumerate(picked, start=1)), told


def trusted(run: Run, judge: Judge, with_reference: bool) -> dict[str, Any]:
    """How often the judge prefers the right answer to training questions to a worse one, with the 95% interval.

    Raises:
        SmeltError: too seldom, or there is no such question.
    """
    questions = control.build(run.dep(f"{CHAT}/train.jsonl"), [], run.param("judge.control"), run.param("seed"))
    if not questions:
        raise SmeltError(
            f"{CHAT}/train.jsonl has no task of the kinds manual and encyclopedia, on which a judge is measured before "
            f"it is believed; set preferences.from to answers, files or null"
        )
    accuracy = calibration.require(judge, questions, with_reference, run.param("judge.min_accuracy"), run.progress)
    run.log(f"{judge.identity} is right on {accuracy['value']:.0%} of pairs with a known answer")
    return accuracy


def pick(found: Preferred, verdict: Preference | None) -> Preferred:
    """The pair with the answer first that the judge prefers.

    Reasons: no_verdict (the judge gave none, or the budget ended before), draw.
    """
    if verdict is None or verdict.score == 0.5:
        return Preferred([], "", "", "no_verdict" if verdict is None else "draw")
    return found if verdict.score > 0.5 else found._replace(chosen=found.rejected, rejected=found.chosen)


def once(found: Iterator[Found], held_out: set[str]) -> Iterator[Found]:
    """Every pair once, and none whose question is held out for the evaluation."""
    seen = set()
    for one, where in found:
        if one.reason is None:
            key = (json.dumps(one.prompt), one.chosen, one.rejected)
            reason = "held_out" if question(one.prompt) in held_out else "duplicate" if key in seen else None
            seen.add(key)
            one = Preferred([], "", "", reason) if reason else one
        yield one, where


@stage
def main(run: Run) -> None:
    seed, settings = run.param("seed"), run.param("preferences")
    out = run.out("data/preferences")
    out.mkdir()

    found: Iterator[Found] = iter(())
    judged: dict[str, Any] | None = None
    if settings.origin == "files":
        found = read_pairs(run.dep(FILES))
    elif settings.origin == "answers":
        found = from_answers(run, **settings.answers.model_dump())
    elif settings.origin == "judge":
        found, judged = from_judge(run, **settings.judge.model_dump())
    else:
        run.log("preferences.from is null: no pairs are made")
    with open(run.dep(CHAT) / "test.jsonl", encoding="utf-8") as lines:
        held_out = {question(json.loads(line)["messages"][:-1]) for line in lines}

    # Pairs in = pairs out + rejects
    pairs, rejects, reasons = [], [], Counter()
    for one, where in once(found, held_out):
        if one.reason:
            reasons[one.reason] += 1
            rejects.append(where | {"reason": one.reason})
        else:
            pairs.append(one)
    sides = split(pairs, settings.limit, settings.val, seed)
    kept = sum(map(len, sides.values()))
    if over := len(pairs) - kept:
        reasons["over_the_limit"] = over
    if settings.origin and not all(sides.values()):
        told = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())) or "no row was rejected"
        raise SmeltError(
            f"{len(sides['train'])} pairs to train on and {len(sides['val'])} to validate with; both are needed. "
            f"Rejected: {told}. Give more, raise preferences.val, or set preferences.from to null"
        )
    for name, side in sides.items():
        lines = [json.dumps(one.to_row(), ensure_ascii=False) + "\n" for one in side]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (out / "rejects.jsonl").write_text("".join(json.dumps(reject) + "\n" for reject in rejects), encoding="utf-8")
    run.metrics(
        {
            "from": settings.origin,
            "rows": len(pairs) + len(rejects),
            "train": len(sides["train"]),
            "val": len(sides["val"]),
            "rejected": dict(sorted(reasons.items())),
            **({"judge": judged} if judged else {}),
        }
    )
    if settings.origin:
        run.log(f"{kept} pairs, {len(sides['val'])} of them held out; rejected {dict(sorted(reasons.items()))}")


if __name__ == "__main__":
    main()
