"""SQL that editors can read is SQL that no compiler checked: the server checks it here."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

from store.session import POINT_LOOKUPS
from store.sql import queries

# COPY has no parameters to prepare; its test is every test that settles anything.
PREPARABLE = {name: text for name, text in queries().items() if "FROM STDIN" not in text}


class _Anything(dict[str, object]):
    """Null for every name that a query asks for."""

    def __missing__(self, key: str) -> None:
        return None


def positional(text: str) -> str:
    """The query with $1, $2, ... as psycopg sends it."""
    found = PostgresQuery(Transformer())
    names = _Anything()
    for each in text.split("%(")[1:]:
        names[each.split(")")[0]] = None
    found.convert(text, names)
    return found.query.decode()


@pytest.fixture(scope="module")
def migrated(copied_database, template_database) -> Iterator[Connection]:
    with copied_database(template_database) as url, psycopg.connect(url, autocommit=True) as conn:
        yield conn


@pytest.mark.parametrize("name", PREPARABLE)
def test_query_prepares_on_the_migrated_schema_within_the_applications_rights(
    migrated: Connection, name: str
) -> None:
    statement = sql.SQL("PREPARE checked AS ") + sql.SQL(positional(PREPARABLE[name]))  # type: ignore[arg-type]
    migrated.execute(statement)
    try:
        (parameters,) = migrated.execute(
            "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'checked'"
        ).fetchone() or (0,)
        # Planning it as the application checks its rights, too; nothing is run.
        values = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
        migrated.execute(sql.SQL("EXPLAIN EXECUTE checked") + sql.SQL(values))  # type: ignore[arg-type]
    finally:
        migrated.execute("DEALLOCATE checked")


@pytest.mark.parametrize("name", sorted(queries()))
def test_query_says_what_it_is_for(name: str) -> None:
    assert queries()[name].startswith("-- ")


# What every batch runs, with the index that it must come by.
HOT = {
    "lock_accounts": ({"accounts": [1, 2, 3]}, {"account_state"}),
    "meters_of_batch": ({"numbers": ["1", "2"]}, {"meter", "meter_state", "installation"}),
    "known_readings": (
        {"meters": [1], "registers": ["1.8.0"], "ts": [0], "first_ms": 0, "last_ms": 2**42},
        {"reading"},
    ),
    "counted_readings": (
        {
            "meters": [1],
            "registers": ["1.8.0"],
            "boots": [1],
            "seqs": [1],
            "ts": [2**41],
            "around_ms": 1,
            "first_ms": 0,
            "last_ms": 2**42,
        },
        {"gap", "reading"},
    ),
    "posted_from": (
        {"accounts": [1, 2], "from": [0, 0]},
        {"ledger_posting", "energy_debit"},
    ),
    "checkpoints_before": ({"accounts": [1, 2], "before": [9, 9]}, {"checkpoint"}),
    "steady_meters": ({"numbers": ["1", "2"]}, {"meter", "meter_state", "account_state"}),
    "move_accounts": (
        {"now_ms": 1, "count": 1, "moves": list(range(11)), "numbers": [1]},
        {"meter_state", "account_state"},
    ),
    "entries_of_account": (
        {"account": 1, "before": None, "limit": 9},
        {"ledger_posting", "energy_debit"},
    ),
    "readings_after": (
        {"accounts": [1, 2], "after": [0, 0], "first_ms": 0},
        {"installation", "reading"},
    ),
    "update_accounts": (
        {
            "account_id": [1],
            "position": ["{}"],
            "anchor_ms": [1],
            "newest_reading_ms": [1],
            "has_tail": [False],
            "settled_until_ms": [1],
            "due_ms": [1],
            "balance_micro": [1],
            "debt_micro": [1],
            "supply": ["connected"],
            "emergency_in_use": [False],
            "low_credit": [False],
            "decided_supply": ["connected"],
            "decisions": [0],
            "zero_waits": [False],
            "emergency_waits": [False],
        },
        {"account_state"},
    ),
    "lock_due_accounts": ({"now_ms": 0, "limit": 10}, {"account_state"}),
    # What every event stream is watched by, once a second.
    "account_marks": (
        {"accounts": [1, 2], "top_ups": 8, "successes": ["Accept"]},
        {
            "account_state",
            "ledger_posting",
            "energy_debit",
            "installation",
            "reading",
            "top_up",
        },
    ),
    "access_of_person": ({"person": 1}, {"person", "contact", "account", "account_grant"}),
    "top_up_of_payment": ({"channel": "a", "partner_txn_id": "b"}, {"top_up"}),
}


def scanned(plan: object) -> Iterator[tuple[str, str]]:
    """(node, table) of every scan of a plan."""
    if isinstance(plan, dict):
        if "Relation Name" in plan:
            yield plan["Node Type"], plan["Relation Name"]
        for each in plan.values():
            yield from scanned(each)
    elif isinstance(plan, list):
        for each in plan:
            yield from scanned(each)


@pytest.mark.parametrize("name", HOT)
def test_hot_query_looks_rows_up_by_an_index(busy: Connection, name: str) -> None:
    values, tables = HOT[name]
    for setting in POINT_LOOKUPS:
        busy.execute(setting)
    row = busy.execute("EXPLAIN (FORMAT JSON) " + queries()[name], values).fetchone()
    assert row is not None
    found = list(scanned(row[0]))
    # A hypertable is scanned chunk by chunk, under the chunks' names.
    names = {"reading" if table.startswith("_hyper") else table for _, table in found}
    assert tables <= names
    small = {"gateway", "centre"}
    assert [each for each in found if each[0] == "Seq Scan" and each[1] not in small] == []
