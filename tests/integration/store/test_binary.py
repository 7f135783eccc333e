"""The binary forms against the server that reads them: what goes in comes out."""

from collections.abc import Iterator
from datetime import date

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from store import binary
from store.binary import Bools, Int8s, Texts

INT8 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
COLUMNS = {
    "bigint": (Int8s, INT8),
    "text": (Texts, TEXT),
    "boolean": (Bools, st.booleans()),
}
SLOW_START = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def conn(runtime) -> Iterator[Connection]:
    with psycopg.connect(runtime.database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TEMP TABLE packed (number bigint, words text, day date, at timestamptz,"
            " form jsonb, places smallint[], amounts bigint[])"
        )
        yield connection


@pytest.mark.parametrize("name", COLUMNS)
@SLOW_START
@given(st.data())
def test_a_column_comes_out_of_the_server_as_it_went_in(conn, name, data) -> None:
    column, values = COLUMNS[name]
    given_values = data.draw(st.lists(values | st.none(), max_size=40))
    query = f"SELECT array_agg(v ORDER BY n) FROM unnest(%s::{name}[]) WITH ORDINALITY AS c (v, n)"
    row = conn.execute(query, [column(given_values)]).fetchone()
    assert (row[0] or []) == given_values


@SLOW_START
@given(
    number=INT8 | st.none(),
    words=TEXT | st.none(),
    day=st.dates(date(1970, 1, 1), date(2999, 12, 31)),
    at_ms=st.integers(0, 4_000_000_000_000),
    form=st.dictionaries(TEXT, INT8 | TEXT),
    places=st.lists(st.integers(-(2**15), 2**15 - 1), max_size=8),
    amounts=st.lists(INT8, max_size=8),
)
def test_a_packed_row_is_the_row(conn, number, words, day, at_ms, form, places, amounts) -> None:
    fields = (
        binary.int8(number),
        binary.text(words),
        (4).to_bytes(4, "big") + binary.day_number(day).to_bytes(4, "big", signed=True),
        binary.int8(binary.microseconds(at_ms)),
        binary.jsonb(form),
        binary.array_field(binary.int2_array(places)),
        binary.array_field(binary.int8_array(amounts)),
    )
    conn.execute("TRUNCATE packed")
    with conn.cursor().copy("COPY packed FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(binary.COPY_HEAD + len(fields).to_bytes(2, "big") + b"".join(fields))
        copy.write(binary.COPY_TAIL)
    row = conn.execute(
        "SELECT number, words, day, (extract(epoch FROM at) * 1000)::bigint, form, places, amounts"
        " FROM packed"
    ).fetchone()
    assert row == (number, words, day, at_ms, form, places, amounts)
