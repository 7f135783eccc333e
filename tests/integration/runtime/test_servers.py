"""The private servers under kill -9, restarts, rivals and signals."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiomqtt
import psycopg
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from prepaid.runtime import (
    Account,
    Binaries,
    Folders,
    Instance,
    Mosquitto,
    Postgres,
    RuntimeUnavailableError,
    resolve,
)
from prepaid.runtime.debian import DebianPackages
from prepaid.runtime.mosquitto_files import AUTOSAVE_INTERVAL_S

READY_S = 60


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return resolve(lambda _: None)


@pytest.fixture
def home(open_folder: Path, request: pytest.FixtureRequest) -> Path:
    return open_folder / re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def database(binaries: Binaries, home: Path) -> Iterator[Postgres]:
    with Postgres(binaries.postgres, home, Account.choose()) as server:
        yield server


@pytest.fixture
def broker(binaries: Binaries, home: Path) -> Iterator[Mosquitto]:
    with Mosquitto(binaries.mosquitto, home, Account.choose()) as server:
        yield server


@pytest.fixture
def run_runtime(home: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts `python -m prepaid.runtime run` on a data folder of the given name."""
    started: list[subprocess.Popen[str]] = []

    def run(name: str) -> subprocess.Popen[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PREPAID_")}
        cache = str(Folders.choose(os.environ).cache)
        process = subprocess.Popen(
            [sys.executable, "-m", "prepaid.runtime", "run"],
            env={**environ, "PREPAID_HOME": str(home / name), "PREPAID_CACHE": cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        process.communicate(timeout=READY_S)


def addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(2)]
    return dict(line.split("=", 1) for line in lines)


def processes_in(folder: Path) -> list[str]:
    """Command lines of all processes whose working folder lies in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve(strict=True).is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_committed_rows_survive_kill_and_restart_on_the_same_address(database: Postgres) -> None:
    before = database.url
    with psycopg.connect(before, autocommit=True) as connection:
        connection.execute("CREATE TABLE reading (energy_wh bigint)")
        connection.execute("INSERT INTO reading SELECT generate_series(1, 1000)")
        database.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not database.running()
    database.start()
    assert database.url == before
    with psycopg.connect(before) as connection:
        assert connection.execute("SELECT sum(energy_wh) FROM reading").fetchone() == (500_500,)


def test_timescaledb_works_in_the_database(database: Postgres, binaries: Binaries) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("CREATE EXTENSION timescaledb")
        connection.execute("CREATE TABLE profile (at timestamptz NOT NULL, energy_wh bigint)")
        connection.execute("SELECT create_hypertable('profile', by_range('at'))")
        version, edition, durable = (
            connection.execute(query).fetchone()
            for query in (
                "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
                "SHOW timescaledb.license",
                "SELECT current_setting('fsync'), current_setting('synchronous_commit')",
            )
        )
    assert version == (binaries.postgres.timescaledb_version,)
    assert edition == (binaries.postgres.timescaledb_edition,)
    assert durable == ("on", "on")


def test_password_is_asked_for(database: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(re.sub(r":[^:@/]+@", ":wrong@", database.url))


def test_secrets_and_data_are_closed_to_others(database: Postgres, home: Path) -> None:
    assert (home / "password").stat().st_mode & 0o777 == 0o600
    assert (home / "server").stat().st_mode & 0o777 == 0o700


async def test_broker_keeps_queue_and_retained_message_over_kill(broker: Mosquitto) -> None:
    host, port = broker.url.removeprefix("mqtt://").split(":")
    session = {
        "hostname": host,
        "port": int(port),
        "identifier": "engine",
        "protocol": aiomqtt.ProtocolVersion.V5,
        "clean_start": False,
        "properties": _lasting_session(),
    }
    async with aiomqtt.Client(**session) as client:
        await client.subscribe("reading/#", qos=1)
    async with aiomqtt.Client(host, int(port)) as meter:
        # Past mosquitto's own limits of 20 in flight and 1,000 queued.
        for number in range(1_200):
            await meter.publish("reading/1", str(number), qos=1)
        await meter.publish("reading/state", "connected", qos=1, retain=True)
    await asyncio.sleep(AUTOSAVE_INTERVAL_S + 1)
    broker.kill()
    broker.start()
    assert broker.url == f"mqtt://{host}:{port}"
    received = []
    async with asyncio.timeout(20), aiomqtt.Client(**session) as client:
        async for message in client.messages:
            received.append(message.payload)
            if message.payload == b"connected":
                break
    assert received == [*(str(number).encode() for number in range(1_200)), b"connected"]


def _lasting_session() -> Properties:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3_600
    return properties


def test_broker_serves_devices_on_a_listener_of_their_own(broker: Mosquitto) -> None:
    assert broker.device_url != broker.url


@pytest.mark.parametrize("server", ["database", "broker"])
def test_second_instance_on_one_folder_is_refused(
    server: str, binaries: Binaries, home: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(server)
    rival: Postgres | Mosquitto = (
        Postgres(binaries.postgres, home, Account.choose())
        if server == "database"
        else Mosquitto(binaries.mosquitto, home, Account.choose())
    )
    with pytest.raises(RuntimeUnavailableError, match="Another instance") as caught:
        rival.start()
    assert caught.value.code == "already_running"


def test_server_that_cannot_start_says_why(binaries: Binaries, home: Path) -> None:
    with Postgres(binaries.postgres, home, Account.choose()):
        pass
    (home / "server" / f"cluster-{binaries.postgres.major}" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(RuntimeUnavailableError, match=r"did not start .*FATAL") as caught:
        Postgres(binaries.postgres, home, Account.choose()).start()
    assert caught.value.code == "start_failed"
    assert processes_in(home) == []


def test_cluster_of_another_postgres_is_not_touched(binaries: Binaries, home: Path) -> None:
    account = Account.choose()
    account.make_folder(home / "server" / "cluster-12")
    with pytest.raises(RuntimeUnavailableError, match="pg_upgrade") as caught:
        Postgres(binaries.postgres, home, account).start()
    assert caught.value.code == "other_postgres_major"


def test_stopped_server_has_no_pid(binaries: Binaries, home: Path) -> None:
    server = Mosquitto(binaries.mosquitto, home, Account.choose())
    for read in (lambda: server.pid, lambda: server.url):
        with pytest.raises(RuntimeUnavailableError) as caught:
            read()
        assert caught.value.code == "not_running"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_everything(
    number: signal.Signals, home: Path, run_runtime: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = run_runtime("one")
    addresses(process)
    assert len(processes_in(home)) > 2
    process.send_signal(number)
    assert process.wait(READY_S) == 0
    assert processes_in(home) == []


def test_killed_runner_leaves_nothing_that_hinders_the_next(
    home: Path, run_runtime: Callable[[str], subprocess.Popen[str]]
) -> None:
    first = run_runtime("one")
    before = addresses(first)
    first.kill()
    first.wait()
    assert len(processes_in(home)) > 2
    second = run_runtime("one")
    assert addresses(second) == before
    second.terminate()
    assert second.wait(READY_S) == 0
    assert processes_in(home) == []


def test_two_copies_run_side_by_side(
    run_runtime: Callable[[str], subprocess.Popen[str]],
) -> None:
    one, two = addresses(run_runtime("one")), addresses(run_runtime("two"))
    assert not set(one.values()) & set(two.values())
    for copy in (one, two):
        with psycopg.connect(copy["PREPAID_DATABASE__URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_server_that_ends_by_itself_ends_the_rest(
    home: Path, run_runtime: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = run_runtime("one")
    addresses(process)
    pid = int((home / "one/mosquitto/state/mosquitto.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert process.wait(READY_S) == 1
    assert processes_in(home) == []


def test_own_servers_are_used_as_given(home: Path) -> None:
    given = {"PREPAID_DATABASE__URL": "postgresql://d/x", "PREPAID_BROKER__URL": "mqtt://b"}
    with Instance(lambda _: None, given, Folders(home, home)) as instance:
        assert (instance.database_url, instance.broker_url) == ("postgresql://d/x", "mqtt://b")
    assert not home.exists()


def test_own_broker_is_used_beside_a_private_database(home: Path) -> None:
    given = {**os.environ, "PREPAID_DATABASE__URL": "", "PREPAID_BROKER__URL": "mqtt://b"}
    folders = Folders(home, Folders.choose(os.environ).cache)
    with Instance(lambda _: None, given, folders) as instance:
        assert instance.broker_url == "mqtt://b"
        with psycopg.connect(instance.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert processes_in(home) == []


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="about apt's own message")
def test_mirror_that_does_not_answer_is_told_without_its_password(home: Path) -> None:
    given = {"PREPAID_DEBIAN_MIRROR": "http://user:secret-word@127.0.0.1:1/debian"}
    with pytest.raises(RuntimeUnavailableError, match="Could not connect") as caught:
        DebianPackages(home, given).fetch(lambda _: None)
    assert caught.value.code == "apt_failed"
    assert "secret-word" not in str(caught.value)
