"""SPDX licence expressions against the list of those that the owner accepts.

Expressions are parsed with license-expression, which brings the index of licences and their categories with it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from license_expression import ExpressionError, Licensing, get_license_index, get_spdx_licensing

_OWN = "LicenseRef-"  # SPDX: a licence that is not on its list


@functools.cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@functools.cache
def _share_alike_ids() -> frozenset[str]:
    """SPDX ids of licences that ask derived works to carry them on: copyleft, in full or in part."""
    return frozenset(
        entry["spdx_license_key"]
        for entry in get_license_index()
        if entry.get("spdx_license_key") and (entry["category"] or "").startswith("Copyleft")
    )


def parse(expression: str) -> Any:
    """The tree of an SPDX expression, ids in their official spelling.

    Raises:
        ValueError: it is not an SPDX expression, or names a licence that SPDX does not have.
    """
    licensing = _licensing()
    try:
        tree = licensing.parse(expression)
    except ExpressionError as error:
        raise ValueError(f"{expression!r} is not an SPDX expression: {error}") from None
    unknown = [] if tree is None else licensing.unknown_license_keys(tree)
    if tree is None or not all(key.startswith(_OWN) for key in unknown):
        raise ValueError(
            f"{expression!r} is not an SPDX licence (https://spdx.org/licenses; one of your own is {_OWN}<Name>)"
        )
    return tree


def accepted(expression: str, allow: Collection[str]) -> bool:
    """Whether the licences in `allow` suffice: both sides of an AND, one side of an OR.

    Raises:
        ValueError: the expression, or an entry of `allow`, is not SPDX.
    """
    licensing, known = _licensing(), {parse(entry).render() for entry in allow}

    def holds(node: Any) -> bool:
        if isinstance(node, licensing.AND):
            return all(map(holds, node.args))
        if isinstance(node, licensing.OR):
            return any(map(holds, node.args))
        return node.render() in known  # one licence, with its exception if it has one

    return holds(parse(expression))


def share_alike(expression: str) -> bool:
    """Whether a part of the expression is copyleft."""
    return any(key in _share_alike_ids() for key in _licensing().license_keys(parse(expression)))


class Refused(NamedTuple):
    """Documents of one source under one licence that is not accepted."""

    source: str
    licence: str
    documents: int
    example: str  # uri of one of them
    reason: str


def refuse(found: Iterable[tuple[str, str, int, str]], allow: Collection[str]) -> Iterator[Refused]:
    """Those of `found` (source, licence, documents, an uri) whose licence is not accepted."""
    for source, licence, documents, example in found:
        try:
            reason = "" if accepted(licence, allow) else "not in licences.allow"
        except ValueError as error:
            reason = str(error)
        if reason:
            yield Refused(source, licence, documents, example, reason)
