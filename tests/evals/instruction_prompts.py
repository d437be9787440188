"""Makes lib/evals/instructions/prompts.jsonl, and for each prompt an answer that follows it and one that does not.

    python -m tests.evals.instruction_prompts

A prompt is a topic and one to three instructions in the words of IFEval's checkers. Everything is drawn by its number:
the same file every time. Numbers are small, so that a hundred tokens are enough to follow them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lib.evals.instructions.follow import OWN, Prompt, checkers

TOPICS = [
    ("Describe a walk along a river", "river"), ("Explain why leaves turn red in autumn", "leaf"),
    ("Recommend a book about the sea", "sea"), ("Tell me how bread is baked", "bread"),
    ("Write about the first day at a new school", "school"), ("Explain what a lighthouse is for", "light"),
    ("Describe the sound of a busy market", "market"), ("Tell a short story about a lost key", "key"),
    ("Explain how bees make honey", "bees"), ("Give advice to somebody who learns to swim", "water"),
    ("Describe your favourite season", "season"), ("Explain what the moon does to the tides", "moon"),
    ("Write a note to a neighbour about a borrowed ladder", "ladder"), ("Describe a train ride at night", "train"),
    ("Explain how to look after a cactus", "cactus"), ("Tell me why people climb mountains", "mountain"),
    ("Describe a kitchen on a Sunday morning", "kitchen"), ("Explain what a library offers", "library"),
    ("Write about a dog that waits for its owner", "dog"), ("Explain how a bicycle stays upright", "bicycle"),
]  # fmt: skip
SENTENCES = [
    "The day was calm and the air was warm.", "People walked by and talked about small things.",
    "There was time to sit down and to look around.", "Nobody was in a hurry and nothing was loud.",
    "The old house near the road had a green door.", "Children played games while their parents made tea.",
    "It is good to know a place well.", "Every year the same birds come back to the same trees.",
]  # fmt: skip
KEYWORDS = ["garden", "silver", "window", "bridge", "paper", "winter", "candle", "engine"]
FORBIDDEN = ["very", "really", "beautiful", "important", "however", "also"]
ENDINGS = ["That is all there is to say", "Ask me anything else", "Thank you for reading"]
LANGUAGES = {
    "de": "Der Fluss war ruhig und die Luft war warm. Wir saßen lange am Ufer und sprachen über das Wetter.",
    "fr": "La rivière était calme et il faisait chaud. Nous sommes restés longtemps au bord de l'eau pour parler.",
    "es": "El río estaba tranquilo y hacía calor. Nos quedamos mucho tiempo en la orilla hablando del tiempo.",
    "it": "Il fiume era calmo e faceva caldo. Siamo rimasti a lungo sulla riva a parlare del tempo.",
}
BODY = " ".join(SENTENCES[:4])  # 36 words, 4 sentences, no comma, no capital word


class Kind(NamedTuple):
    """An instruction: its arguments, how an answer is changed so that it follows them, and an answer that does not."""

    name: str
    arguments: Callable[[random.Random, str], dict[str, Any]]
    follow: Callable[[str, dict[str, Any], str], str]  # the answer so far, the arguments, the prompt
    break_: Callable[[dict[str, Any], str], str]
    alone: bool = False  # not together with others


def _words(draw: random.Random, count: int) -> list[str]:
    return draw.sample(KEYWORDS, count)


def _paragraphs(count: int, separator: str) -> str:
    return separator.join(SENTENCES[index % len(SENTENCES)] for index in range(count))


KINDS = [
    Kind("keywords:existence", lambda draw, topic: {"keywords": _words(draw, 2)},
         lambda text, a, _: f"{text} I saw a {' and a '.join(a['keywords'])} there.", lambda a, _: BODY),
    Kind("keywords:frequency",
         lambda draw, topic: {"keyword": topic, "frequency": draw.choice([2, 3]), "relation": "at least"},
         lambda text, a, _: text + f" This {a['keyword']} is a {a['keyword']}." * 2,
         lambda a, _: BODY),
    Kind("keywords:forbidden_words", lambda draw, topic: {"forbidden_words": draw.sample(FORBIDDEN, 2)},
         lambda text, a, _: text, lambda a, _: f"{BODY} This is {a['forbidden_words'][0]} again."),
    Kind("keywords:letter_frequency",
         lambda draw, topic: {"letter": draw.choice("zqx"), "let_frequency": 3, "let_relation": "at least"},
         lambda text, a, _: f"{text} We counted {' '.join(a['letter'] * 3)} there.", lambda a, _: "No such one."),
    Kind("language:response_language", lambda draw, topic: {"language": draw.choice(sorted(LANGUAGES))},
         lambda text, a, _: LANGUAGES[a["language"]], lambda a, _: BODY, alone=True),
    Kind("length_constraints:number_sentences",
         lambda draw, topic: {"num_sentences": draw.choice([3, 4]), "relation": "at least"},
         lambda text, a, _: text, lambda a, _: "There is one sentence here."),
    Kind("length_constraints:number_paragraphs", lambda draw, topic: {"num_paragraphs": draw.choice([2, 3])},
         lambda text, a, _: _paragraphs(a["num_paragraphs"], "\n***\n"), lambda a, _: BODY, alone=True),
    Kind("length_constraints:number_words",
         lambda draw, topic: {"num_words": draw.choice([20, 30]), "relation": "at least"},
         lambda text, a, _: text, lambda a, _: "Too few words."),
    Kind("length_constraints:nth_paragraph_first_word",
         lambda draw, topic: {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": _words(draw, 1)[0]},
         lambda text, a, _: f"{SENTENCES[0]}\n\n{a['first_word']} is where it ends.",
         lambda a, _: _paragraphs(2, "\n\n"), alone=True),
    Kind("detectable_content:number_placeholders", lambda draw, topic: {"num_placeholders": draw.choice([1, 2])},
         lambda text, a, _: f"{text} Write to [name] at [address].", lambda a, _: BODY),
    Kind("detectable_content:postscript", lambda draw, topic: {"postscript_marker": "P.S."},
         lambda text, a, _: f"{text}\n\nP.S. Bring a friend.", lambda a, _: BODY),
    Kind("detectable_format:number_bullet_lists", lambda draw, topic: {"num_bullets": draw.choice([2, 3])},
         lambda text, a, _: "\n".join([text, *(f"* point {number}" for number in range(a["num_bullets"]))]),
         lambda a, _: BODY),
    Kind("detectable_format:constrained_response", lambda draw, topic: {},
         lambda text, a, _: "My answer is maybe.", lambda a, _: BODY, alone=True),
    Kind("detectable_format:number_highlighted_sections", lambda draw, topic: {"num_highlights": draw.choice([1, 2])},
         lambda text, a, _: f"{text} It was *quite calm* and *quite warm*.", lambda a, _: BODY),
    Kind("detectable_format:multiple_sections",
         lambda draw, topic: {"section_spliter": "Section", "num_sections": 2},
         lambda text, a, _: f"Section 1\n{SENTENCES[0]}\nSection 2\n{SENTENCES[1]}", lambda a, _: BODY, alone=True),
    Kind("detectable_format:json_format", lambda draw, topic: {},
         lambda text, a, _: '```json\n{"answer": "calm"}\n```', lambda a, _: BODY, alone=True),
    Kind("detectable_format:title", lambda draw, topic: {},
         lambda text, a, _: f"<<A calm day>>\n{text}", lambda a, _: BODY),
    Kind("combination:two_responses", lambda draw, topic: {},
         lambda text, a, _: f"{SENTENCES[0]}\n******\n{SENTENCES[1]}", lambda a, _: BODY, alone=True),
    Kind("combination:repeat_prompt", lambda draw, topic: {"prompt_to_repeat": ""},  # filled in: it is the task
         lambda text, a, _: f"{a['prompt_to_repeat']}\n{text}", lambda a, _: BODY, alone=True),
    Kind("startend:end_checker", lambda draw, topic: {"end_phrase": draw.choice(ENDINGS)},
         lambda text, a, _: f"{text} {a['end_phrase']}", lambda a, _: BODY),
    Kind("change_case:capital_word_frequency",
         lambda draw, topic: {"capital_frequency": 2, "capital_relation": "at least"},
         lambda text, a, _: f"{text} It was VERY CALM there.", lambda a, _: BODY),
    Kind("change_case:english_capital", lambda draw, topic: {},
         lambda text, a, _: text.upper(), lambda a, _: BODY, alone=True),
    Kind("change_case:english_lowercase", lambda draw, topic: {},
         lambda text, a, _: text.lower(), lambda a, _: BODY, alone=True),
    Kind("punctuation:no_comma", lambda draw, topic: {},
         lambda text, a, _: text, lambda a, _: f"Well, {BODY}"),
    Kind("startend:quotation", lambda draw, topic: {},
         lambda text, a, _: f'"{text}"', lambda a, _: BODY, alone=True),
]  # fmt: skip
# In this order changes of one do not undo those of another: what ends an answer comes last.
TOGETHER = [
    "keywords:existence", "keywords:frequency", "keywords:forbidden_words", "keywords:letter_frequency",
    "length_constraints:number_sentences", "length_constraints:number_words",
    "detectable_content:number_placeholders", "detectable_format:number_highlighted_sections",
    "change_case:capital_word_frequency", "punctuation:no_comma", "detectable_format:title",
    "detectable_format:number_bullet_lists", "detectable_content:postscript", "startend:end_checker",
]  # fmt: skip
SINGLE, PAIRS, TRIPLES = 3, 30, 15  # of each kind alone, of two together, of three


class Solved(NamedTuple):
    prompt: Prompt
    followed: str
    broken: str  # follows none of the instructions, or all but one


def _compose(number: int, task: str, topic: str, kinds: list[Kind], known: dict[str, Any]) -> Solved:
    draw = random.Random(number)
    arguments, sentences, answer = [], [], BODY
    for kind in kinds:
        values = kind.arguments(draw, topic)
        if "prompt_to_repeat" in values:
            values["prompt_to_repeat"] = f"{task}."
        arguments.append(values)
        sentences.append(" ".join(known[kind.name](kind.name).build_description(**values).split()))
        answer = kind.follow(answer, values, task)
    broken = kinds[number % len(kinds)]
    wrong = broken.break_(arguments[number % len(kinds)], task)
    prompt = f"{task}. " + " ".join(
        sentence if sentence.endswith((".", "!", "?")) else f"{sentence}." for sentence in sentences
    )
    return Solved(Prompt(f"own-{number:03}", prompt, [kind.name for kind in kinds], arguments), answer, wrong)


def solved(known: dict[str, Any]) -> list[Solved]:
    """All prompts with their two answers. Kinds and sizes are spread over the whole: any beginning is a fair sample."""
    by_name = {kind.name: kind for kind in KINDS}
    groups = [[kind] for kind in KINDS for _ in range(SINGLE)]
    for size, count in ((2, PAIRS), (3, TRIPLES)):
        for number in range(count):
            names = random.Random(f"{size} {number}").sample(TOGETHER, size)
            groups.append([by_name[name] for name in TOGETHER if name in names])
    random.Random(0).shuffle(groups)
    found: list[Solved] = []
    for number, kinds in enumerate(groups):
        asked = {(one.prompt.prompt.partition(".")[0], *one.prompt.kinds) for one in found}
        names = tuple(kind.name for kind in kinds)
        topics = TOPICS[number % len(TOPICS) :] + TOPICS
        task, topic = next(entry for entry in topics if (entry[0], *names) not in asked)
        found.append(_compose(number, task, topic, kinds, known))
    return found


def lines(prompts: list[Prompt]) -> str:
    rows = [
        {"key": one.id, "prompt": one.prompt, "instruction_id_list": one.kinds, "kwargs": one.arguments}
        for one in prompts
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    with checkers(Path(sys.argv[1] if len(sys.argv) > 1 else "data/assets/nltk")) as registry:
        OWN.write_text(lines([one.prompt for one in solved(registry)]), encoding="utf-8")
