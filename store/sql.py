"""Named queries from `queries/*.sql`, read once.

A file is a series of blocks headed `-- name: some_name` and a line of description. Editors, psql
and EXPLAIN can read them; a test prepares each one on the migrated schema.
"""

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def queries() -> dict[str, LiteralString]:
    """Every named query of the package."""
    found: dict[str, LiteralString] = {}
    folder = files("store").joinpath("queries")
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if not entry.name.endswith(".sql"):
            continue
        for name, body in parse_queries(entry.read_text(encoding="utf-8")):
            if name in found:
                raise ValueError(f"two queries are named {name}")
            found[name] = body
    return found


def parse_queries(text: str) -> list[tuple[str, LiteralString]]:
    """Names and bodies of one file. The text must be a package's own, never a caller's."""
    parts = _HEAD.split(text)
    return [
        (name, cast("LiteralString", body.strip()))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    ]


def query(name: str) -> LiteralString:
    """The text of one named query."""
    return queries()[name]


def like_text(text: str | None) -> str | None:
    """What somebody looks for, as LIKE takes it: it means itself."""
    if text is None:
        return None
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
