"""Chat in the terminal with the exported model, with or without your documents: `make chat`.

Type a message and press Enter.

  /docs    answer from the indexed documents, with sources; again to switch it off
  /reset   forget the conversation
  /help    show this
  /quit    leave (or Ctrl-D); Ctrl-C stops an answer

Without a terminal, each line of the input is a message:  printf 'How do I list my buckets?\\n' | make chat
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from lib.completion.chat_model import ChatModel
from lib.pipeline import quiet  # noqa: F401
from lib.pipeline.errors import SmeltError
from lib.rag.answer import NOT_FOUND, cited
from lib.rag.passage import Hit
from lib.rag.search import Retriever
from lib.serve.conversation import Conversation, Sampling

MODELS = Path("models/export/gguf")
INDEX = Path("models/index")
TYPED = Path(".scratch/chat_history")


def default_model(folder: Path) -> Path:
    """The exported model in 8 bits, or in 16.

    Raises:
        SmeltError: nothing has been exported.
    """
    for kind in ("Q8_0", "F16"):
        if found := sorted(folder.glob(f"*-{kind}.gguf")):
            return found[0]
    raise SmeltError(f"there is no model in {folder}: run `make repro` first, or `make pull`")


def show(text: str) -> None:
    """Print without control characters: a model or a document may not steer the terminal."""
    print("".join(c for c in text if c.isprintable() or c in "\n\t"), end="", flush=True)


def note(text: str) -> None:
    print(f"({text})", file=sys.stderr, flush=True)


def show_sources(hits: Iterable[Hit], numbers: set[int]) -> None:
    """List the passages that the answer could draw on, those it cites marked."""
    show("\nSources (* cited):\n" if numbers else "\nSources:\n")
    for number, (passage, score) in enumerate(hits, start=1):
        mark = "*" if number in numbers else " "
        heading = f"{passage.heading}: " if passage.heading else ""
        show(f" {mark}[{number}] {heading}{passage.document} at {passage.start:,}, score {score:.2f}\n")


class Terminal:
    """The commands and what they act on."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._index: Retriever | None = None
        self._docs = False

    def toggle_docs(self) -> None:
        if self._index is None:
            note("opening the index")
            self._index = Retriever.open(INDEX)
        self._docs = not self._docs
        note(f"documents {'on' if self._docs else 'off'}")

    def handle(self, line: str) -> bool:
        """Obey a command or answer a message. False: the user wants to leave."""
        match line.split():
            case []:
                pass
            case ["/quit" | "/exit"]:
                return False
            case ["/help"]:
                print(__doc__)
            case ["/reset"]:
                self._conversation.history.clear()
                note("forgotten")
            case ["/docs"]:
                self.toggle_docs()
            case [command] if command.startswith("/"):
                note(f"there is no command {command}; /help lists them")
            case _:
                self._answer(line)
        return True

    def _answer(self, question: str) -> None:
        if self._docs and self._index is not None:
            hits = self._index.search(question)
            if not hits:
                show(f"{NOT_FOUND}\n")
                return
            hits, pieces = self._conversation.ask_about(question, hits)
            answer = self._stream(pieces)
            show_sources(hits, cited(answer, hits))
        else:
            self._stream(self._conversation.ask(question))

    def _stream(self, pieces: Generator[str, None, None]) -> str:
        answer = ""
        with closing(pieces):
            try:
                for piece in pieces:
                    answer += piece
                    show(piece)
            except KeyboardInterrupt:
                show(" ...")
        show("\n")
        return answer


def read_lines() -> Iterator[str]:
    """What the user types, with editing and a history kept between sessions; or the lines of a pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline

    with suppress(OSError):
        readline.read_history_file(TYPED)
    try:
        while True:
            try:
                yield input("\n> ")
            except KeyboardInterrupt:
                note("Ctrl-D or /quit leaves")
    except EOFError:
        print()
    finally:
        with suppress(OSError):
            TYPED.parent.mkdir(exist_ok=True)
            readline.write_history_file(TYPED)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.serve.terminal", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", type=Path, help=f"a GGUF file; default: the Q8_0 or F16 in {MODELS}")
    parser.add_argument("--docs", action="store_true", help="begin with /docs on")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default): always the likeliest token")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer; default %(default)s")
    parser.add_argument("--context", type=int, default=4096, help="tokens; default %(default)s, or the model's own")
    parser.add_argument("--seed", type=int, default=1, help="for temperatures above 0; default %(default)s")
    options = parser.parse_args()
    try:
        path = options.model or default_model(MODELS)
        model = ChatModel(path, options.context, options.seed)
        terminal = Terminal(Conversation(model, Sampling(options.max_tokens, options.temperature), note))
        if options.docs:
            terminal.toggle_docs()
    except SmeltError as error:
        sys.exit(f"chat: error: {error}")
    note(f"{path.name}, {model.context:,} tokens of context; /help for help")
    for line in read_lines():
        try:
            if not terminal.handle(line.strip()):
                break
        except SmeltError as error:
            note(f"error: {error}")
        except KeyboardInterrupt:  # before the answer began
            note("stopped")


if __name__ == "__main__":
    main()
