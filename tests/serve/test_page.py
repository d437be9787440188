"""The page in a real browser: ask, stream, stop, cite, reload, and what it says when something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from lib.serve.api import PAGE
from tests.serve import home as made
from tests.serve.running import Running
from tests.serve.tiny import write_reciter

pytestmark = pytest.mark.xdist_group("serve")
expect.set_options(timeout=10_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the PATH, else playwright's own."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            # No sandbox: it wants a user other than root.
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"there is no Chromium: {error.message.splitlines()[0]}")
        with browser:
            yield browser


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A model that goes on for seconds."""
    folder = tmp_path_factory.mktemp("slow")
    path = write_reciter(folder / "endless-F16.gguf", [f"w{n} " for n in range(30)], context=32_768, forever=True)
    with Running(
        folder, "--model", str(path), "--context", "32768", "--max-tokens", "30000", "--queue", "0"
    ) as running:
        yield running


class Visit:
    """A page that notes what must not happen: errors, dialogs, requests to elsewhere."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.wrong = page, []
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith((url, "data:")) or self.wrong.append(request.url))

    def ask(self, question: str) -> None:
        """Ask as soon as that is possible, and see that it was asked."""
        expect(self.page.locator("#models label").first).to_be_visible()
        expect(self.page.locator("#send")).to_be_visible()
        questions = self.page.locator("article.user")
        before = questions.count()
        self.page.get_by_label("Question").fill(question)
        self.page.keyboard.press("Enter")
        expect(questions).to_have_count(before + 1)


@pytest.fixture
def visit(browser: Browser, server: Running) -> Iterator[Visit]:
    yield from visiting(browser, server)


@pytest.fixture
def slow_visit(browser: Browser, slow: Running) -> Iterator[Visit]:
    yield from visiting(browser, slow)


def visiting(browser: Browser, running: Running, **options) -> Iterator[Visit]:
    with browser.new_context(**options) as context:
        page = context.new_page()
        visited = Visit(page, running.url)
        page.goto(running.url)
        yield visited
        assert not visited.wrong


def answer(page: Page):
    return page.locator("article.assistant").last


def test_an_answer_from_the_documents_opens_its_source(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#welcome")).to_contain_text("tiny-docs looks into your documents first")
    visit.ask(made.QUESTION)
    expect(answer(page).locator(".actions")).to_contain_text("tokens")
    expect(answer(page).locator("strong")).to_have_text("Yes")
    expect(answer(page).locator(".cite")).to_have_text(["1", "1"])  # [9] was not retrieved; code is not cited
    expect(answer(page).locator("td")).to_have_text(["1", "2"])
    answer(page).get_by_role("button", name=f"Source 1, cited: {made.TITLE}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(made.TITLE)  # text, not markup
    expect(dialog.locator("mark")).to_have_text(made.QUESTION)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_passage_is_marked_inside_its_document(visit: Visit, server: Running) -> None:
    page = visit.page
    passages = httpx.get(f"{server.url}/v1/documents/docs/long page").json()["passages"]
    visit.ask(passages[2]["text"])
    answer(page).locator(".sources button").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("mark")).not_to_be_empty()
    expect(dialog.locator("#source-text")).to_have_text(made.LONG)  # put together from passages that overlap
    start = passages[2]["start"]
    expect(dialog.locator("#source-place")).to_have_text(f"docs/long page, from character {start:,}")
    assert dialog.locator("mark").inner_text() == made.LONG[start : passages[2]["end"]] == passages[2]["text"]


def test_an_address_opens_the_passage(visit: Visit, server: Running) -> None:
    visit.page.goto(f"{server.url}/?document=docs%2Flist&passage=docs%2Flist%3A0")
    expect(visit.page.get_by_role("dialog").locator("mark")).to_have_text(made.QUESTION)


def test_what_a_model_writes_runs_nothing_and_loads_nothing(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("tiny", exact=True).check()
    visit.ask("?")
    expect(answer(page).locator(".actions")).to_contain_text("tokens")
    body = answer(page).locator(".text")
    expect(body.locator("img, script, iframe, style, form")).to_have_count(0)
    expect(body).to_contain_text("<img src=x onerror=alert(1)><script>alert(2)</script>")  # as text
    link = body.get_by_role("link")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).to_contain_text("(example.org)")
    expect(body.locator("pre code")).to_have_text("ls -l\n")
    expect(body.locator(".cite")).to_have_count(0)  # this model retrieves nothing


def test_nothing_in_the_documents_is_said(visit: Visit) -> None:
    visit.ask("5 6 7 8 9")
    expect(answer(visit.page).locator(".text")).to_have_text("This is not in the documents.")
    expect(answer(visit.page).locator(".sources")).to_have_count(0)


def test_a_reload_keeps_the_conversations(visit: Visit) -> None:
    page = visit.page
    visit.ask(made.QUESTION)
    expect(answer(page).locator(".actions")).to_contain_text("tokens")
    page.get_by_role("button", name="New conversation").click()
    visit.ask("5 6 7 8 9")
    expect(answer(page).locator(".actions")).to_be_visible()
    page.reload()
    titles = page.locator("#conversations .title")
    expect(titles).to_have_text(["5 6 7 8 9", made.QUESTION])
    titles.nth(1).click()
    expect(answer(page).locator(".cite").first).to_be_visible()
    answer(page).locator(".cite").first.click()
    expect(page.get_by_role("dialog").locator("mark")).to_have_text(made.QUESTION)
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Delete: {made.QUESTION}").click()
    expect(titles).to_have_text(["5 6 7 8 9"])


def test_an_answer_streams_until_it_is_stopped(slow_visit: Visit, slow: Running) -> None:
    page = slow_visit.page
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest answer").fill("30000")
    page.get_by_role("button", name="Done").click()
    slow_visit.ask("go on")
    text = answer(page).locator(".text")
    expect(text).to_contain_text("w0 w1 w2")
    expect(text).not_to_have_text(text.inner_text())  # there is more
    page.get_by_role("button", name="Stop the answer").click()
    expect(answer(page)).to_contain_text("Stopped.")
    slow.wait_until(lambda: slow.metric("smelt_requests_waiting") == 0)
    stopped = text.inner_text()
    slow_visit.ask("again")
    expect(page.locator("article.assistant")).to_have_count(2)
    expect(answer(page).locator(".text")).to_contain_text("w0 w1")
    page.reload()  # in the middle of an answer
    expect(page.locator("article.assistant").first.locator(".text")).to_have_text(stopped)
    expect(answer(page)).to_contain_text("Stopped.")


def test_retry_and_edit_ask_again(slow_visit: Visit) -> None:
    page = slow_visit.page
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest answer").fill("3")
    page.get_by_role("button", name="Done").click()
    slow_visit.ask("one")
    expect(answer(page)).to_contain_text("Cut off at the longest answer")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("article.assistant")).to_have_count(1)
    expect(answer(page).locator(".text")).to_have_text("w0 w1 w2")
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Question")).to_have_value("one")
    expect(page.locator("article")).to_have_count(0)
    slow_visit.ask("two")
    expect(page.locator("article.user .text")).to_have_text("two")


def test_errors_are_said_and_can_be_retried(slow_visit: Visit, slow: Running, browser: Browser) -> None:
    page = slow_visit.page
    page.route("**/v1/chat/completions", lambda route: route.abort())
    slow_visit.ask("a")
    expect(answer(page).get_by_role("alert")).to_have_text("The server cannot be reached. Is it running?")
    page.unroute("**/v1/chat/completions")
    settings = json.dumps({"max_tokens": 30_000})
    with browser.new_context() as context:  # takes the only place
        other = context.new_page()
        other.goto(slow.url)
        other.evaluate(f"localStorage.setItem('smelt:settings', {json.dumps(settings)})")
        other.reload()
        Visit(other, slow.url).ask("go on")
        expect(answer(other).locator(".text")).to_contain_text("w0")
        page.get_by_role("button", name="Retry").click()
        expect(answer(page).get_by_role("alert")).to_have_text("the queue is full: try again")
        other.get_by_role("button", name="Stop the answer").click()
    slow.wait_until(lambda: slow.metric("smelt_requests_waiting") == 0)
    page.get_by_role("button", name="Retry").click()
    expect(answer(page).locator(".text")).to_contain_text("w0")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_full_context_leaves_the_oldest_turns_out(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("tiny", exact=True).check()
    for _ in range(4):
        visit.ask("x" * 300)
    expect(answer(page)).to_contain_text("Without the oldest")
    visit.ask("x" * 1100)
    expect(answer(page).get_by_role("alert")).to_contain_text("the model's context 1,024")


def test_a_key_is_asked_for_and_kept_for_this_tab(browser: Browser, home: Path) -> None:
    with Running(home, keys="sk-page") as running:
        for visited in visiting(browser, running):
            page = visited.page
            expect(page.get_by_role("alert")).to_contain_text("wrong or missing API key")
            page.get_by_role("button", name="Enter a key").click()
            expect(page.get_by_label("API key")).to_be_focused()
            page.keyboard.type("sk-page")
            page.keyboard.press("Enter")
            visited.ask(made.QUESTION)
            expect(answer(page).locator(".cite").first).to_be_visible()
            answer(page).locator(".cite").first.click()
            expect(page.get_by_role("dialog").locator("mark")).to_be_visible()
            assert "sk-page" not in page.evaluate("JSON.stringify(localStorage)")
            page.evaluate("sessionStorage.clear()")
            page.reload()  # into a conversation, which hides the welcome
            expect(page.get_by_role("alert")).to_contain_text("wrong or missing API key")


def test_it_is_usable_with_a_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_label("Question")).to_be_focused()
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("5 6")
    expect(page.get_by_label("Question")).to_have_value("first line\n5 6")
    page.keyboard.press("Enter")
    expect(answer(page).locator(".actions")).to_be_visible()
    expect(page.get_by_label("Question")).to_be_focused()
    reached = set()
    for _ in range(25):
        page.keyboard.press("Shift+Tab")
        reached.add(page.evaluate("(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()"))
    assert {"Settings", "Switch between dark and light", "New conversation", "Copy", "Retry"} <= reached
    assert "Skip to the question" in reached
    buttons = "[...document.querySelectorAll('button')].filter((button) => button.checkVisibility())"
    unnamed = page.evaluate(f"{buttons}.filter((button) => !(button.ariaLabel || button.innerText.trim())).length")
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_schemes(browser: Browser, server: Running, scheme: str) -> None:
    for visited in visiting(
        browser, server, viewport={"width": 360, "height": 640}, color_scheme=scheme, has_touch=True
    ):
        page = visited.page
        visited.ask(made.QUESTION)
        expect(answer(page).locator(".cite").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.locator("#sidebar")).to_be_hidden()
        page.get_by_role("button", name="Conversations", exact=True).tap()
        expect(page.locator("#conversations .title")).to_have_text([made.QUESTION])
        page.get_by_role("button", name="Close the list of conversations").tap()
        expect(page.locator("#sidebar")).to_be_hidden()
        assert contrast(page, "article.assistant .text") >= 7
        assert contrast(page, ".small:visible") >= 4.5
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Switch between dark and light").tap()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != back


def contrast(page: Page, selector: str) -> float:
    """Of a text to the page (WCAG 2.1, 1.4.3)."""

    def luminance(colour: str) -> float:
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    text = luminance(page.locator(selector).first.evaluate("(element) => getComputedStyle(element).color"))
    back = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    return (max(text, back) + 0.05) / (min(text, back) + 0.05)


def test_vendored_scripts_are_what_their_packages_had() -> None:
    vendor = PAGE / "vendor"
    packages = json.loads((vendor / "vendor.json").read_text())
    named = {name: entry["sha256"] for package in packages.values() for name, entry in package["files"].items()}
    assert {path.name for path in vendor.iterdir()} == {*named, "vendor.json"}
    for name, digest in named.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name
    for package in packages.values():
        assert package["licence"]
        assert any(package["version"] in (vendor / name).read_text()[:300] for name in package["files"])
