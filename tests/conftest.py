"""A real PostgreSQL with TimescaleDB and a real broker for the session. Missing means failed.

Also a watch over the whole run: no key that any test makes may stand in what is printed or logged.
"""

import ast
import asyncio
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import mqtt5
import psycopg
import pytest
import structlog
from psycopg import sql

from meter_gateway.receiver import BrokerAddress
from prepaid.runtime import Folders, Instance
from tokens.keys import DECODER_KEY_OCTETS, DES_KEY_OCTETS, KDF_KEY_OCTETS, Key


class KeyWatch:
    """Every key that this process made, and whether a text holds one: in hex, or as bytes."""

    LENGTHS = sorted(
        {2 * n for n in (DES_KEY_OCTETS, KDF_KEY_OCTETS, *DECODER_KEY_OCTETS.values())}
    )
    # Keys of few different octets (zeros, say) would be found in any register.
    LEAST_DIFFERENT = 6

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def note(self, octets: bytes) -> None:
        # Hypothesis makes keys of the words in our code, which a log may hold as well.
        word = octets.isascii() and octets.decode().isprintable()
        if len(set(octets)) >= self.LEAST_DIFFERENT and not word:
            self._keys.add(octets.hex())

    def found_in(self, text: str) -> bool:
        runs = re.findall(r"[0-9a-f]{16,}", text.lower())
        for literal in re.findall(r"""b'(?:[^'\\\n]|\\.)+'|b"(?:[^"\\\n]|\\.)+\"""", text):
            try:
                runs.append(ast.literal_eval(literal).hex())
            except (ValueError, SyntaxError):
                continue
        return any(
            run[at : at + length] in self._keys
            for run in runs
            for length in self.LENGTHS
            for at in range(len(run) - length + 1)
        )


WATCH = KeyWatch()
# What the servers of all processes of a run may need.
ROOM_IN_MEMORY = 4 << 30
_make_key = Key.__init__


def _make_watched_key(self: Key, octets: bytes) -> None:
    _make_key(self, octets)
    WATCH.note(bytes(octets))


Key.__init__ = _make_watched_key  # type: ignore[method-assign] # for the length of the run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if WATCH.found_in("\n".join(content for _, content in report.sections)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} printed or logged a key"
    return report


@pytest.fixture
def key_watch() -> KeyWatch:
    """The watch over this run, which the keys of the test are known to."""
    return WATCH


@pytest.fixture(autouse=True)
def own_logs() -> None:
    """A command that a test before this one ran in our process may have set its level of logs."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A temporary folder that the servers' account can enter; pytest's own belongs to us alone."""
    folder = Path(tempfile.mkdtemp(prefix="prepaid-test-", dir=_quick_folder()))
    folder.chmod(0o755)
    yield folder
    logs = [path for path in folder.rglob("*.log") if path.is_file()]
    printed = [path.name for path in logs if WATCH.found_in(path.read_text(errors="replace"))]
    shutil.rmtree(folder)
    assert not printed, f"a server logged a key: {printed}"


@pytest.fixture(scope="session")
def runtime(open_folder: Path) -> Iterator[Instance]:
    """One database server and one broker, own ones where PREPAID_*__URL is set."""
    folders = Folders(open_folder / "data", Folders.choose(os.environ).cache)
    with Instance(lambda _: None, folders=folders) as instance:
        yield instance


@pytest.fixture(scope="session")
def template_database(runtime: Instance) -> Iterator[str]:
    """Name of a migrated database that clones are made from; nobody may connect to it."""
    from store.migrate import migrate  # noqa: PLC0415 - tests of one package need no store

    name = f"prepaid_template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(runtime.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            migrate(_with_database(runtime.database_url, name))
            _close_to_all(connection, name)
            yield name
        finally:
            _drop(connection, name)


@pytest.fixture(scope="session")
def copied_database(runtime: Instance) -> Callable[[str], AbstractContextManager[str]]:
    """Address of a copy of a database, by the name of one that nobody is connected to.

    It is the application's: what this may not do, a test sees. `as_owner` gives the owner's.
    """
    from store.roles import as_application  # noqa: PLC0415 - as above

    @contextmanager
    def copied(template: str) -> Iterator[str]:
        name = f"prepaid_test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(runtime.database_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            try:
                yield as_application(_with_database(runtime.database_url, name))
            finally:
                _drop(connection, name)

    return copied


@pytest.fixture(scope="session")
def as_owner(runtime: Instance) -> Callable[[str], str]:
    """The address of the owner of the database at another address, for what only he may."""

    def owners(url: str) -> str:
        return _with_database(runtime.database_url, urlsplit(url).path.removeprefix("/"))

    return owners


@pytest.fixture(scope="session")
def frozen_database(runtime: Instance) -> Callable[[str], str]:
    """Name of the database at an address, once it admits nobody but those who copy or drop it."""

    def freeze(url: str) -> str:
        name = urlsplit(url).path.removeprefix("/")
        with psycopg.connect(runtime.database_url, autocommit=True) as connection:
            _close_to_all(connection, name)
        return name

    return freeze


@pytest.fixture
def database_url(
    copied_database: Callable[[str], AbstractContextManager[str]], template_database: str
) -> Iterator[str]:
    """Address of a migrated database of this test's own."""
    with copied_database(template_database) as url:
        yield url


@pytest.fixture(scope="session")
def broker_url(runtime: Instance) -> str:
    """Address of the broker, shared by the session: a test takes topics of its own."""
    return runtime.broker_url


@pytest.fixture
def session_is_kept(broker_url: str) -> Callable[[str], Awaitable[bool]]:
    """Whether the broker has a session of a client id. Looking takes no message from it."""

    async def look(client_id: str) -> bool:
        address = BrokerAddress.parse(broker_url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        hello = mqtt5.ConnectPacket(client_id, clean_start=False, session_expiry_interval=3600)
        writer.write(hello.write())
        answer, _ = mqtt5.read(memoryview(await reader.read(1 << 16)))
        assert isinstance(answer, mqtt5.ConnAckPacket)
        if not answer.session_present:
            writer.write(mqtt5.DisconnectPacket(session_expiry_interval=0).write())
        writer.close()
        await writer.wait_closed()
        return answer.session_present

    return look


def _quick_folder() -> Path | None:
    """Where there is room in memory, there; else None, the usual place.

    A copy of a database is a thousand small files. A journaling file system looks past the places
    of all that were deleted lately for each new one: a third of the CPU in a sample of a run.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < ROOM_IN_MEMORY:
        return None
    return memory


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))


def _close_to_all(connection: psycopg.Connection, name: str) -> None:
    # TimescaleDB's scheduler connects to every database that admits it, and a database that is in
    # use cannot be cloned.
    connection.execute(
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
    )
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
    )


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    )


@pytest.fixture
def recorded_spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What keeps every span of this process while the test runs, whoever makes it.

    To be asked for before what makes spans: that asks for its tracer as it is made.
    """
    from opentelemetry import trace  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415 - as above
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The setter takes one provider in the life of a process.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter
