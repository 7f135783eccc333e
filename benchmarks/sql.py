"""The statements of the floors and of the checks, from `queries.sql`, read once.

They are not the product's, so they do not stand in the store; its form of named blocks is used.
"""

from functools import cache
from importlib.resources import files
from typing import LiteralString

from store.sql import parse_queries


@cache
def _statements() -> dict[str, LiteralString]:
    text = files("benchmarks").joinpath("queries.sql").read_text(encoding="utf-8")
    return dict(parse_queries(text))


def statement(name: str) -> LiteralString:
    """The text of one statement."""
    return _statements()[name]
