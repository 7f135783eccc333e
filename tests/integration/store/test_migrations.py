"""The schema: reached from nothing, once, forward only; and what it refuses by itself."""

import re
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.errors import InsufficientPrivilege, IntegrityConstraintViolation

from prepaid.commands.doctor import check_own_database, check_role
from store import migrate, roles
from store.errors import MigrationError
from store.migrate import Migration, migrations, pending
from store.sql import query


@pytest.fixture
def empty_url(copied_database, as_owner) -> Iterator[str]:
    with copied_database("template0") as url:
        yield as_owner(url)


@pytest.fixture
def owner_url(database_url: str, as_owner) -> str:
    return as_owner(database_url)


@pytest.fixture
def spare_role(runtime) -> Iterator[str]:
    """The name of a role that is gone after the test."""
    name = f"prepaid_test_{uuid.uuid4().hex[:12]}"
    yield name
    with psycopg.connect(runtime.database_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def licence(conn: Connection) -> str:
    row = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return str(row[0]) if row and row[0] else "apache"


@pytest.fixture
def ascii_url(runtime) -> Iterator[str]:
    """A database of no encoding, as a server has by itself whose system speaks none."""
    name = f"prepaid_test_{uuid.uuid4().hex[:12]}"
    made = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'")
    with psycopg.connect(runtime.database_url, autocommit=True) as conn:
        conn.execute(made.format(sql.Identifier(name)))
        yield runtime.database_url.rpartition("/")[0] + f"/{name}"
        conn.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def test_a_database_that_is_not_of_utf8_is_refused_and_told_of(ascii_url: str) -> None:
    for _ in range(2):
        with pytest.raises(MigrationError, match="not of UTF-8: make it anew"):
            migrate.migrate(ascii_url)
    check = check_own_database(ascii_url)
    assert not check.passed
    assert "not of UTF-8" in check.detail


def test_a_new_database_of_an_own_server_needs_no_mending(empty_url: str) -> None:
    assert check_own_database(empty_url).passed
    migrate.migrate(empty_url)
    assert check_own_database(empty_url).passed


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


def test_a_file_that_changed_after_it_landed_is_refused(owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as conn:
        conn.execute("UPDATE schema_migration SET sha256 = 'x' WHERE name LIKE '0002%%'", ())
    with pytest.raises(MigrationError, match=r"0002_create_readings\.sql was changed"):
        migrate.migrate(owner_url)


def test_a_database_of_a_newer_version_is_refused(owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as conn:
        conn.execute("INSERT INTO schema_migration (name, sha256) VALUES ('9999_more.sql', 'x')")
    with pytest.raises(MigrationError, match=r"9999_more.sql.*start the newer version"):
        migrate.migrate(owner_url)


def test_a_file_that_fails_leaves_nothing(owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration("0099_break.sql", "CREATE TABLE half_done (id int); SELECT 1 / 0")
    monkeypatch.setattr(migrate, "migrations", lambda: [*migrations(), broken])
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate.migrate(owner_url)
    with psycopg.connect(owner_url) as conn:
        assert conn.execute("SELECT to_regclass('half_done')").fetchone() == (None,)
        assert pending(conn) == [broken.name]


CHANGES = ("UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0} CASCADE")


def append_only_tables() -> list[str]:
    """From the migrations' own text: every table whose changes a trigger refuses."""
    text = "\n".join(each.text for each in migrations())
    found = set(
        re.findall(
            r"BEFORE UPDATE OR DELETE ON (\w+)\s+FOR EACH ROW EXECUTE FUNCTION refuse_change", text
        )
    )
    renamed = dict(re.findall(r"ALTER TABLE (\w+) RENAME TO (\w+)", text))
    return sorted(renamed.get(table, table) for table in found)


def change_of(conn: Connection, change: str, table: str) -> sql.Composed:
    """A change of a column that the table has, or of all its rows."""
    (column,) = conn.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND attidentity = '' ORDER BY attnum LIMIT 1",
        (table,),
    ).fetchone() or ("",)
    return sql.SQL(change).format(sql.Identifier(table), sql.Identifier(column))


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_append_only_refuses_every_change_of_its_owner(
    busy_owner: Connection, change: str
) -> None:
    tables = ["ledger_posting", "tariff_version", "installation", "reversal", "ledger_account"]
    for table in tables:
        with pytest.raises(IntegrityConstraintViolation, match="is append-only"):
            busy_owner.execute(change_of(busy_owner, change, table))


def test_the_application_has_no_permission_to_change_what_is_append_only(
    busy: Connection,
) -> None:
    tables = append_only_tables()
    assert len(tables) > 8
    for table in tables:
        for change in CHANGES:
            with pytest.raises(InsufficientPrivilege):
                busy.execute(change_of(busy, change, table))


def test_the_application_may_read_and_add_and_remove_nothing_but_stored_positions(
    busy: Connection,
) -> None:
    found: dict[str, set[str]] = {}
    for table, privilege in busy.execute(
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
        " WHERE grantee = %s AND table_schema = 'public'",
        (roles.APPLICATION,),
    ):
        found.setdefault(table, set()).add(privilege)
    assert {table for table, given in found.items() if "SELECT" not in given} == set()
    assert {table for table, given in found.items() if "DELETE" in given} == roles.DELETABLE
    others = set().union(*found.values()) - {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert others == set()
    assert "INSERT" not in found["schema_migration"]


BEYOND_THE_APPLICATION = (
    "UPDATE top_up SET amount_micro = 1",
    "UPDATE token SET digits = '00000000000000000000'",
    "UPDATE reading SET value_wh = 1",
    "UPDATE adjustment SET amount_micro = 1",
    "DELETE FROM token",
    "DELETE FROM reading",
    "ALTER TABLE ledger_posting DISABLE TRIGGER USER",
    "SET session_replication_role = replica",
    "INSERT INTO schema_migration (name, sha256) VALUES ('x', 'x')",
    "CREATE TABLE mine (id int)",
)


def test_the_application_cannot_rewrite_facts_or_loosen_the_guards(busy: Connection) -> None:
    for statement in BEYOND_THE_APPLICATION:
        with pytest.raises(InsufficientPrivilege):
            busy.execute(statement)


def test_grants_are_given_again_without_harm_and_follow_the_schema(owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE added_later (id int)")
        conn.execute("GRANT DELETE ON ledger_posting TO prepaid_app")
        assert roles.provide(conn, None)
        given = conn.execute(
            "SELECT has_table_privilege('prepaid_app', 'added_later', 'INSERT'),"
            " has_table_privilege('prepaid_app', 'ledger_posting', 'DELETE')"
        ).fetchone()
    assert given == (True, False)


def test_a_login_is_made_once_and_may_nothing_more_than_the_application(
    owner_url: str, spare_role: str
) -> None:
    login = roles.Login(spare_role, "a password for this test")
    with psycopg.connect(owner_url, autocommit=True) as conn:
        assert roles.provide(conn, login)
        assert roles.provide(conn, login)
        rights = (
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolcanlogin FROM pg_roles"
            " WHERE rolname = %s"
        )
        assert conn.execute(rights, (spare_role,)).fetchone() == (False, False, False, True)
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(spare_role)))
        found = conn.execute(query("connected_as")).fetchone()
        assert found == (spare_role, False)
        assert conn.execute("SELECT count(*) FROM schema_migration").fetchone() != (0,)
    assert "password" not in repr(login)
    assert roles.connected_as(owner_url).may_rewrite


def test_the_doctor_tells_a_login_that_could_rewrite_the_ledger(
    database_url: str, owner_url: str
) -> None:
    assert check_role(database_url).passed
    check = check_role(owner_url)
    assert "owns the schema or is a superuser" in check.detail
    assert "PREPAID_DATABASE__OWNER_URL" in check.mend
    assert urlsplit(owner_url).password not in check.detail + check.mend


def test_who_may_make_no_role_is_told_what_to_run(owner_url: str, spare_role: str) -> None:
    said: list[str] = []
    with psycopg.connect(owner_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(spare_role)))
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(spare_role)))
        assert not roles._admit(conn, roles.Login(f"{spare_role}_2", "x"), said.append)
        assert not roles._make(
            conn, sql.SQL("CREATE ROLE nobody_may {}").format(sql.SQL("NOLOGIN"))
        )
    assert len(said) == 1
    assert f'GRANT "prepaid_app" TO "{spare_role}_2"' in said[0]


def test_a_transaction_that_does_not_sum_to_zero_is_refused(busy_owner: Connection) -> None:
    busy_owner.execute("ALTER TABLE ledger_posting DISABLE TRIGGER USER")
    with pytest.raises(psycopg.errors.CheckViolation):
        busy_owner.execute("UPDATE ledger_posting SET amounts[1] = amounts[1] + 1")
