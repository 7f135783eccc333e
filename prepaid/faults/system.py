"""The whole system on a private runtime of its own, with a wire in front of everything.

Database and broker are real and ours; two gateway workers (each with its dispatcher and clockwork)
and the API run as `prepaid up` runs them. Each of them has a wire to the database, and the gateways
and the meters have one to the broker, so that any of these ways can be cut, held or slowed.
"""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from meter_gateway.receiver import BrokerAddress
from prepaid.clock import Clock, HandClock, wall_ms
from prepaid.demo.centre import DemoFiles
from prepaid.demo.processes import Child, environment
from prepaid.faults.population import Household, numbers, provision
from prepaid.faults.processes import Program
from prepaid.faults.quota import Bounded
from prepaid.faults.wires import Wires
from prepaid.runtime import Folders, Instance, Mosquitto, Postgres
from prepaid.runtime.folders import Account
from prepaid.runtime.instance import BROKER_VARIABLE, DATABASE_VARIABLE
from prepaid.secrets_files import read_secret
from schemas.quantities import parse_instant_ms
from store.holdings import end_sessions
from store.migrate import migrate
from store.pool import Connection
from store.roles import Login
from store.session import Session

_Result = TypeVar("_Result")

# As `prepaid up` runs: a minute in a second.
SPEED = 60
BEGIN_MS = parse_instant_ms("2026-11-03T06:00:00Z")
WORKERS = 2
LOOK_S = 0.1
# To move a new database asks for it to be left alone; whoever is there is sent away so often.
MOVES = 10
# The ways that have a wire.
METERS_TO_BROKER = "meters-broker"
API_TO_DATABASE = "api-database"
GATEWAYS_TO_BROKER = tuple(f"gateway-{place + 1}-broker" for place in range(WORKERS))
GATEWAYS_TO_DATABASE = tuple(f"gateway-{place + 1}-database" for place in range(WORKERS))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a run: how many meters, and which program the gateways are (tests plant
    defects there). `bounded`: database and broker lie in folders that may run full.
    """

    meters: int
    seed: int
    bounded: bool = False
    gateway_program: Sequence[str] = ("-m", "prepaid")


class System:
    """Made by `system_up`."""

    def __init__(
        self, wanted: Wanted, instance: Instance, database_url: str, files: DemoFiles
    ) -> None:
        assert instance.postgres is not None, "the servers are ours"
        assert instance.mosquitto is not None, "the servers are ours"
        self.postgres: Postgres = instance.postgres
        self.mosquitto: Mosquitto = instance.mosquitto
        self.files = files
        self.database_quota: Bounded | None = None
        self.broker_quota: Bounded | None = None
        # The true time, which the meters' clocks follow, and the system's, which may be stepped.
        self.true_clock = Clock(wall_ms(), BEGIN_MS, SPEED)
        self.clock = HandClock(speed=SPEED, path=files.folder / "clock")
        self.clock.run(self.true_clock)
        self.latest_ms = BEGIN_MS
        self.households: list[Household] = []
        self.api_url = ""
        self._owner_url = database_url
        self._session = Session(database_url, "faults")
        self._wanted = wanted
        self.wires = Wires()
        # The gateways, and the API as the last.
        self.programs: list[Program] = []

    @property
    def gateways(self) -> list[Program]:
        return self.programs[:WORKERS]

    @property
    def api(self) -> Program:
        return self.programs[WORKERS]

    def system_ms(self) -> int:
        """The system's time; the latest that it ever was is kept in `latest_ms`."""
        now_ms = self.clock.now_ms()
        self.latest_ms = max(self.latest_ms, now_ms)
        return now_ms

    def step_clock(self, by_ms: int) -> None:
        """The system's clock is ahead of the true time by so much from now on."""
        self.system_ms()
        true = self.true_clock
        self.clock.run(Clock(true.wall_origin_ms, true.origin_ms + by_ms, SPEED))
        self.system_ms()

    async def look(self, work: Callable[[Connection], _Result]) -> _Result:
        """Anything of the database, as its owner and on no wire. Errors: Unavailable."""
        return await self._session.run(work)

    # --- beginning and end --------------------------------------------------------------------

    async def open(self) -> None:
        """Population, wires and programs. Errors: RuntimeError where a program does not start."""
        wanted = self._wanted
        self.households = await self.look(
            lambda conn: provision(conn, self.files, wanted.meters, wanted.seed, BEGIN_MS)
        )
        await self.wires.start(self._targets())
        logs = self.files.folder / "logs"
        logs.mkdir(mode=0o700)
        self.programs += [self._gateway(place, logs) for place in range(WORKERS)]
        values = self._environment(API_TO_DATABASE)
        serve = ["api", "--port", str(_free_port())]
        self.programs.append(Program("api", Child("api", serve, values, logs)))
        for program in self.programs:
            program.start()
        for program in self.gateways:
            await program.ready()
        self.api_url = await self.api.ready()

    def _targets(self) -> dict[str, int]:
        device = BrokerAddress.parse(self.mosquitto.device_url).port
        backend = BrokerAddress.parse(self.mosquitto.url).port
        database = self.postgres.port
        return (
            {METERS_TO_BROKER: device, API_TO_DATABASE: database}
            | dict.fromkeys(GATEWAYS_TO_BROKER, backend)
            | dict.fromkeys(GATEWAYS_TO_DATABASE, database)
        )

    def _gateway(self, place: int, logs: Path) -> Program:
        port = self.wires.ports[GATEWAYS_TO_BROKER[place]]
        dispatch = self.mosquitto.part_url("part.dispatch")
        values = self._environment(GATEWAYS_TO_DATABASE[place]) | {
            "PREPAID_BROKER__URL": _by_way_of(port, self.mosquitto.url),
            "PREPAID_BROKER__DISPATCH_URL": _by_way_of(port, dispatch),
        }
        name = f"gateway-{place + 1}"
        arguments = ["gateway", "--name", str(place + 1)]
        return Program(name, Child(name, arguments, values, logs, self._wanted.gateway_program))

    def _environment(self, way: str) -> dict[str, str]:
        files = self.files
        database = _by_way_of(self.wires.ports[way], self.postgres.application_url)
        return environment(
            PREPAID_DATABASE__URL=database,
            # Only what migrates knows the owner.
            PREPAID_DATABASE__OWNER_URL="",
            PREPAID_TRUST__SIGNING_KEY=str(files.trust.signing_key_file),
            PREPAID_CLOCK=str(self.clock),
            PREPAID_STS__KEY_FILE=str(files.vending_keys),
            PREPAID_STS__KEY_PASSPHRASE=read_secret(files.passphrase).decode(),
            PREPAID_PARTNERS__FILE=str(files.partners),
        )

    async def supervise(self) -> None:
        """Start again what died by itself, until cancelled; and keep the latest time."""
        while True:
            for program in self.programs:
                program.look()
            self.system_ms()
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """End the programs, then the wires."""
        for program in self.programs:
            await program.stop()
        await self.wires.close()
        await self._session.close()

    def last_words(self) -> dict[str, str]:
        """What each program and server said last."""
        return {program.name: program.last_words() for program in self.programs}


@asynccontextmanager
async def system_up(wanted: Wanted, progress: Callable[[str], None]) -> AsyncIterator[System]:
    """The system running, its supervisor too; everything is ended and removed after the block."""
    with _servers(wanted, progress) as system:
        supervising: asyncio.Task[None] | None = None
        try:
            await system.open()
            supervising = asyncio.create_task(system.supervise(), name="supervisor")
            yield system
        finally:
            if supervising is not None:
                supervising.cancel()
                await asyncio.gather(supervising, return_exceptions=True)
            await system.close()


@contextmanager
def _servers(wanted: Wanted, progress: Callable[[str], None]) -> Iterator[System]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prepaid-faults-")))
        # The servers' account goes through it.
        folder.chmod(0o755)
        files = DemoFiles(folder / "run")
        access = files.trust.access(numbers(wanted.meters), tls=False)
        files.trust.signing_key()
        data = folder / "data"
        quotas = _bounded(stack, data, folder / "bounded") if wanted.bounded else None
        own = {DATABASE_VARIABLE, BROKER_VARIABLE}
        environ = {name: text for name, text in os.environ.items() if name not in own}
        folders = Folders(data, Folders.choose(environ).cache)
        instance = stack.enter_context(Instance(progress, environ, folders, access=access))
        assert instance.postgres is not None, "no address was given to it"
        url, login = instance.database_url, Login.of(instance.application_url)
        if quotas is not None:
            _put_into(url, quotas[0].folder)
        migrate(url, login=login)
        system = System(wanted, instance, url, files)
        if quotas is not None:
            system.database_quota, system.broker_quota = quotas
        yield system


def _bounded(stack: ExitStack, data: Path, tables: Path) -> tuple[Bounded, Bounded]:
    """File systems of their own for the tables of the database and the state of the broker."""
    account, state = Account.choose(), data / "mosquitto" / "state"
    quotas = []
    for folder in (tables, state):
        account.make_folder(folder)
        quotas.append(stack.enter_context(Bounded(folder)))
        account.make_folder(folder)
    return quotas[0], quotas[1]


def _put_into(url: str, folder: Path) -> None:
    """The database into a tablespace there; the log of the server stays where it is. Errors:
    psycopg.errors.ObjectInUse, somebody came back to the database each time.
    """
    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE TABLESPACE bounded LOCATION {}").format(sql.Literal(str(folder)))
        )
        for move in range(MOVES):
            end_sessions(conn, name)
            try:
                conn.execute(
                    sql.SQL("ALTER DATABASE {} SET TABLESPACE bounded").format(sql.Identifier(name))
                )
            except psycopg.errors.ObjectInUse:
                if move == MOVES - 1:
                    raise
            else:
                return


def _by_way_of(port: int, url: str) -> str:
    """The same address through a wire."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
