"""The floors of end-to-end: what else takes the same messages from the same broker into PostgreSQL.

Each subscribes to topics of its own (`bench/m/{meter}/up/reading`, as long as ours), so that the
gateways do not see its messages. A floor is a process that ends by itself after `count` messages.
"""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from benchmarks.ledger_checks import count as count_of
from benchmarks.load import BROKER_VARIABLE, LoadError
from benchmarks.processes import tree_cpu_s
from benchmarks.publisher import forget_session
from benchmarks.report import Servers
from benchmarks.sql import statement
from meter_gateway.receiver import BrokerAddress

FILTER = "bench/m/+/up/reading"
LINES_A_COMMIT = 1_000
SHELL_SESSION = f"bench-shell-{secrets.token_hex(4)}"
NODE_PACKAGES = ("mqtt", "pg")


def topic(number: str) -> str:
    return f"bench/m/{number}/up/reading"


@dataclass(slots=True)
class Running:
    """A floor at work."""

    process: subprocess.Popen[str]
    # What it took to start, which is no part of the measurement.
    cpu_s_before: float = 0.0

    def finish(self) -> float:
        """Wait for its end; CPU seconds with its children's. Errors: LoadError."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.process.returncode != 0:
            raise LoadError("floor_failed", f"{self.process.args!r:.80} ended with an error.")
        return usage.ru_utime + usage.ru_stime - self.cpu_s_before


class Floor(ABC):
    """One way to store readings; `skipped` says why it cannot be measured here."""

    name: str

    def __init__(self, servers: Servers, database_url: str) -> None:
        self.servers = servers
        self.database_url = database_url
        self.address = BrokerAddress.parse(servers.broker_url)

    def skipped(self) -> str | None:
        return None

    def make(self, conn: Connection[Any]) -> None:  # noqa: B027 - not every floor has one
        """Its tables, once."""

    def fill(  # noqa: B027 - not every floor has one
        self, conn: Connection[Any], meters: int, value_wh: int
    ) -> None:
        """Before each repetition: its accounts; every meter stands at `value_wh`."""

    @abstractmethod
    def empty(self, conn: Connection[Any]) -> None:
        """After each repetition, so that what follows does not tidy up behind it."""

    @abstractmethod
    def start(self, count: int) -> Running:
        """Subscribed when it returns."""

    @abstractmethod
    def stored(self, conn: Connection[Any]) -> int:
        """Rows that are committed."""

    def forget(self) -> None:  # noqa: B027 - not every floor has one
        """What the broker keeps of it, after each repetition."""

    def _ready(self, command: list[str]) -> Running:
        """Start a program that says `ready` when it is subscribed; addresses by environment."""
        process = subprocess.Popen(
            command,
            env=os.environ
            | {"PREPAID_DATABASE__URL": self.database_url, BROKER_VARIABLE: self.servers.broker_url}
            | postgres_environment(self.database_url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            process.kill()
            Running(process).finish()
        return Running(process, tree_cpu_s(process.pid))


class Shell(Floor):
    """`mosquitto_sub | psql COPY`: stores the text, judges nothing, acknowledges at once."""

    name = "shell"

    def skipped(self) -> str | None:
        if self.servers.mosquitto_sub is None or self.servers.psql is None:
            return "no mosquitto_sub or no psql on this host"
        if self.address.username is not None or self.address.tls is not None:
            return "the broker asks for a name or TLS, which this pipeline does not give"
        return None

    def make(self, conn: Connection[Any]) -> None:
        conn.execute(statement("make_raw"))

    def empty(self, conn: Connection[Any]) -> None:
        conn.execute(statement("empty_raw"))

    def start(self, count: int) -> Running:
        assert self.servers.mosquitto_sub is not None
        host, port = self.address.host, str(self.address.port)
        session = ["-h", host, "-p", port, "-q", "1", "-c", "-i", SHELL_SESSION, "-t", FILTER]
        subscribe = [str(self.servers.mosquitto_sub), *session]
        # The session stands before the first message is sent, so none can be missed.
        subprocess.run([*subscribe, "-E"], check=True, stdin=subprocess.DEVNULL)
        copy = shlex.join([str(self.servers.psql), "-qc", "\\copy raw_reading from stdin"])
        pipeline = (
            f"{shlex.join([*subscribe, '-C', str(count)])}"
            f" | split -l {LINES_A_COMMIT} --filter={shlex.quote(copy)}"
        )
        return Running(
            subprocess.Popen(
                ["/bin/sh", "-c", pipeline],
                env=os.environ | postgres_environment(self.database_url),
                stdin=subprocess.DEVNULL,
                text=True,
            )
        )

    def stored(self, conn: Connection[Any]) -> int:
        return count_of(conn, "count_raw")

    def forget(self) -> None:
        forget_session(self.address, SHELL_SESSION)


class _Tables(Floor):
    """What stores into the tables of the literal stack."""

    def make(self, conn: Connection[Any]) -> None:
        conn.execute(statement("make_literal"))

    def fill(self, conn: Connection[Any], meters: int, value_wh: int) -> None:
        conn.execute(statement("fill_literal"), {"meters": meters, "value_wh": value_wh})

    def empty(self, conn: Connection[Any]) -> None:
        conn.execute(statement("empty_literal"))

    def stored(self, conn: Connection[Any]) -> int:
        row = conn.execute(statement("count_literal")).fetchone()
        assert row is not None
        if row[1] != 0:
            raise LoadError("floor_wrong", f"{self.name}: entries and balances differ by {row[1]}.")
        return int(row[0])


class Literal(_Tables):
    """aiomqtt, a pydantic model a message, executemany: stores and debits at a flat price."""

    name = "literal stack"

    def start(self, count: int) -> Running:
        return self._ready([sys.executable, "-m", "benchmarks.literal_stack", FILTER, str(count)])


class Node(_Tables):
    """The npm clients of MQTT and PostgreSQL in batches: stores, acknowledges before the commit."""

    name = "npm batch"

    def skipped(self) -> str | None:
        node = shutil.which("node")
        if node is None:
            return "no node on this host"
        asked = "".join(f"require.resolve({name!r});" for name in NODE_PACKAGES)
        if subprocess.run([node, "-e", asked], check=False, capture_output=True).returncode:
            return (
                f"node does not find {' and '.join(NODE_PACKAGES)}: install them and set NODE_PATH"
            )
        return None

    def start(self, count: int) -> Running:
        with as_file(files("benchmarks").joinpath("npm_batch.cjs")) as source:
            insert = statement("node_insert")
            return self._ready(["node", str(source), FILTER, str(count), insert])


def postgres_environment(url: str) -> dict[str, str]:
    """The address as psql and the npm client read it: not as an argument, it holds a password."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
             "dbname": "PGDATABASE"}  # fmt: skip
    given = conninfo_to_dict(url)
    return {variable: str(given[name]) for name, variable in names.items() if name in given}


FLOORS: tuple[type[Floor], ...] = (Shell, Literal, Node)
