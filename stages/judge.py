"""Have a language model judge the chat model's answers and the reference model's to held-out questions.

Before its verdicts count, the judge is measured on questions whose answers are known. Below `judge.min_accuracy` they
are marked as not reliable, and shown all the same. Every answer of the judge is kept when it comes, so that a run that
was killed, or whose endpoint went down, goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lib.completion.endpoint import connect
from lib.evals.answers import read_answers
from lib.evals.items import Item, to_lines
from lib.judge import calibration, control
from lib.judge.calibration import Verdicts
from lib.judge.judge import Judge
from lib.judge.verdicts import Judged, judge_pairs, shared, summarise
from lib.pipeline.run import Run, stage

CONVERSATIONS, QUESTION_SETS = (
    "data/chat/test.jsonl",
    ("data/assets/piqa", "data/assets/openbookqa", "data/assets/commonsenseqa"),
)
MODELS = ("chat", "reference")


@stage
def main(run: Run) -> None:
    settings, seed = run.param("judge"), run.param("seed")
    sets = [file for folder in QUESTION_SETS for file in sorted(run.dep(folder).glob("*.jsonl"))]
    questions = control.build(run.dep(CONVERSATIONS), sets, settings.control, seed)
    answers = [read_answers(run.dep(f"reports/evaluate/{model}/answers.jsonl")) for model in MODELS]
    pairs = shared(*answers, settings.questions)

    with connect(settings.model, run.root, run.log) as endpoint:
        judge = Judge(endpoint)
        run.log(f"{judge.identity}: {len(questions)} control questions, {len(pairs)} to judge")
        verdicts = calibration.ask(judge, questions, settings.with_reference, run.progress)
        measured = calibration.measure(verdicts, settings.min_accuracy)
        judged = judge_pairs(judge, pairs, settings.with_reference, run.progress)
        run.log(
            f"{endpoint.asked} of {endpoint.cost.requests} answers were asked for; the others were kept from before"
        )
    for what in ("grades", "pairs"):
        accuracy = measured[what]["accuracy"]["all"]
        if not measured[what]["reliable"]:
            run.log(
                f"its {what} are not reliable: {_shown(accuracy)} of the control set right, and the lower end of that "
                f"has to reach judge.min_accuracy ({settings.min_accuracy:.0%})"
            )
        else:
            run.log(f"{what}: {_shown(accuracy)} of the control set right")
    if judge.stopped:
        run.log(f"the budget ended it: {judge.stopped}; what was judged until then is in the report")

    items = [
        Item(f"judge/{model}/grade", one.question.id, one.grades[at])
        for one in judged
        for at, model in enumerate(MODELS)
        if one.grades[at] is not None
    ]
    items += [Item("judge/preferred", one.question.id, one.preference) for one in judged if one.preference is not None]
    run.out("reports/judge/items.jsonl").write_text("".join(to_lines(items)), encoding="utf-8")
    run.report("samples.json", [_sample(one) for one in judged[: settings.samples]])
    run.out("reports/judge/control.jsonl").write_text("".join(map(_control_line, verdicts)), encoding="utf-8")
    run.metrics(
        {
            "control": measured,
            "verdicts": summarise(judged, MODELS),
            "rejected": judge.rejected,
            "stopped": judge.stopped,
            "judge": judge.identity,
        }
    )


def _shown(accuracy: Mapping[str, float | None]) -> str:
    if accuracy["value"] is None:
        return "nothing"
    return f"{accuracy['value']:.0%} ({accuracy['low']:.0%} to {accuracy['high']:.0%})"


def _sample(one: Judged) -> dict[str, Any]:
    return {
        "prompt": one.question.prompt,
        "expected": one.question.expected,
        "answers": dict(zip(MODELS, (one.question.answer, one.other), strict=True)),
        "grades": dict(zip(MODELS, one.grades, strict=True)),
        "preference": one.preference,
    }


def _control_line(one: Verdicts) -> str:
    values = {
        "id": one.question.id,
        "question": one.question.question,
        "answers": one.question.answers,
        "grades": one.grades,
        "preferences": {name: found and found._asdict() for name, found in one.preferences.items()},
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
