"""Chat templates are programs in Jinja. They are run in a sandbox, with what transformers gives them and nothing else.

A template comes with a model that somebody else made, so it may not reach beyond its messages: no attribute of Python,
no file, no clock. `strftime_now` tells one date for good, the one that Llama's template names where there is no clock:
today's would make another data set every day.

Reference: transformers/utils/chat_template_utils.py, whose output a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Noncharacters, which no text interchange may hold: they mark what `{% generation %}` encloses.
OPENED, CLOSED = "\ufdd1", "\ufdd2"
TODAY = datetime(2024, 7, 26)


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`: what the assistant wrote, between OPENED and CLOSED."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_enclose"), [], [], body).set_lineno(line)

    def _enclose(self, caller: Callable[[], str]) -> str:
        return OPENED + caller() + CLOSED


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:  # fmt: skip
    """JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def compile_template(source: str) -> Template:
    """A chat template, ready to render.

    Raises:
        TemplateError: it is no Jinja.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = TODAY.strftime
    return environment.from_string(source)
