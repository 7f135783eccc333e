"""The schema: reached from nothing, once, forward only; and what it refuses by itself."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.errors import IntegrityConstraintViolation

from store import migrate
from store.errors import MigrationError
from store.migrate import Migration, migrations, pending


@pytest.fixture
def empty_url(runtime, copied_database) -> Iterator[str]:
    with copied_database("template0") as url:
        yield url


def licence(conn: Connection) -> str:
    row = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return str(row[0]) if row and row[0] else "apache"


def test_files_are_numbered_without_gaps() -> None:
    numbers = [int(each.name[:4]) for each in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_empty_database_comes_to_the_newest_schema_once(empty_url: str) -> None:
    said: list[str] = []
    applied = migrate.migrate(empty_url, said.append)
    assert len(said) == len(migrations())
    assert migrate.migrate(empty_url) == []
    with psycopg.connect(empty_url) as conn:
        assert pending(conn) == []
        waits = set() if licence(conn) == "timescale" else {"0005_timescale_policies.sql"}
        assert {each.name for each in migrations()} - set(applied) == waits


@pytest.mark.parametrize("edition", ["apache", "timescale"])
def test_a_file_of_the_licensed_edition_waits_on_the_other(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, edition: str
) -> None:
    licensed = Migration("0099_compress_more.sql", "-- edition: timescale\nSELECT 1")
    monkeypatch.setattr(migrate, "migrations", lambda: [*migrations(), licensed])
    monkeypatch.setattr(migrate, "_licence", lambda conn: edition)
    if edition == "timescale":
        # Only a server of that edition can apply what the real file asks for.
        monkeypatch.setattr(migrate, "migrations", lambda: [licensed])
    applied = migrate.migrate(empty_url)
    assert (licensed.name in applied) == (edition == "timescale")
    with psycopg.connect(empty_url) as conn:
        assert licensed.name not in pending(conn)


def test_a_file_that_changed_after_it_landed_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("UPDATE schema_migration SET sha256 = 'x' WHERE name LIKE '0002%%'", ())
    with pytest.raises(MigrationError, match=r"0002_create_readings\.sql was changed"):
        migrate.migrate(database_url)


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("INSERT INTO schema_migration (name, sha256) VALUES ('9999_more.sql', 'x')")
    with pytest.raises(MigrationError, match=r"9999_more.sql.*start the newer version"):
        migrate.migrate(database_url)


def test_a_file_that_fails_leaves_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Migration("0099_break.sql", "CREATE TABLE half_done (id int); SELECT 1 / 0")
    monkeypatch.setattr(migrate, "migrations", lambda: [*migrations(), broken])
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate.migrate(database_url)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT to_regclass('half_done')").fetchone() == (None,)
        assert pending(conn) == [broken.name]


@pytest.mark.parametrize("table", ["ledger_transaction", "tariff_version", "installation"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
def test_what_is_append_only_refuses_every_change(
    busy: Connection, table: str, change: str
) -> None:
    column = {"tariff_version": "tariff_id"}.get(table, "account_id")
    names = [sql.Identifier(table), sql.Identifier(column), sql.Identifier(column)]
    statement = sql.SQL(change).format(*names[: change.count("{}")])
    with pytest.raises(IntegrityConstraintViolation, match=f"{table} is append-only"):
        busy.execute(statement)


def test_a_transaction_that_does_not_sum_to_zero_is_refused(busy: Connection) -> None:
    busy.execute("ALTER TABLE ledger_transaction DISABLE TRIGGER USER")
    with pytest.raises(psycopg.errors.CheckViolation):
        busy.execute("UPDATE ledger_transaction SET amounts[1] = amounts[1] + 1")
