"""CSV as spreadsheets and other systems write and read it (RFC 4180): rows out, rows in."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from api import answers
from api.errors import RequestRefused
from schemas.quantities import format_instant, format_micro

# What a spreadsheet would take as a formula, and is no number.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9.]+$)")
_SEPARATORS = (",", ";")


def heading(columns: Sequence[str]) -> list[str]:
    """Names of columns as this contract has them: `balance_micro` -> `balance`, `paid_ms` ->
    `paid_at`.
    """
    return [
        name.removesuffix("_micro")
        if name.endswith("_micro")
        else name.removesuffix("_ms") + "_at"
        if name.endswith("_ms") and name != "at_ms"
        else name.removesuffix("_ms")
        for name in columns
    ]


def written(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lines of CSV; a column says by its name what its integers are."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in rows:
        writer.writerow([_cell(name, value) for name, value in zip(columns, row, strict=True)])
    return out.getvalue()


def head_line(columns: Sequence[str]) -> str:
    """The first line."""
    out = io.StringIO()
    csv.writer(out).writerow(heading(columns))
    return out.getvalue()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        if name.endswith("_micro"):
            return format_micro(value)
        return format_instant(value) if name.endswith("_ms") or name == "as_of" else str(value)
    text = value if isinstance(value, str) else orjson.dumps(answers.spoken(value)).decode()
    # People write names and reasons, and others open them in a spreadsheet.
    return f"'{text}" if _FORMULA.match(text) else text


class Line(NamedTuple):
    """A row as it stands in the file, without its empty fields; `number` counts from 1, the head.

    `fault`: what is wrong with it as a row.
    """

    number: int
    fields: dict[str, str]
    fault: str | None


def read(body: bytes, columns: Sequence[str], needed: Sequence[str], most: int) -> Iterator[Line]:
    """The rows of a file with a head that names its columns; parted by commas or semicolons.

    Errors: RequestRefused `bad_csv`, `bad_columns`, `too_many_rows`, before the first row.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RequestRefused("bad_csv", "Send CSV in UTF-8.", "") from None
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise RequestRefused("bad_csv", f"This is no CSV: {error}.", "") from None
    head = [name.strip() for name in rows[0][1]] if rows else []
    unknown = [name for name in head if name not in columns]
    missing = [name for name in needed if name not in head]
    if unknown or missing or len(set(head)) < len(head):
        raise RequestRefused(
            "bad_columns",
            f"Name each column once in the first line: {', '.join(needed)}, and if you like "
            f"{', '.join(name for name in columns if name not in needed) or 'nothing else'}.",
            "",
        )
    if len(rows) - 1 > most:
        raise RequestRefused("too_many_rows", f"Send at most {most} rows at once.", "")
    return (_line(number, head, row) for number, row in rows[1:])


def _line(number: int, head: Sequence[str], row: Sequence[str]) -> Line:
    if len(row) != len(head):
        return Line(number, {}, f"This row has {len(row)} fields and the first line {len(head)}.")
    fields = {name: value.strip() for name, value in zip(head, row, strict=True)}
    return Line(number, {name: value for name, value in fields.items() if value}, None)
