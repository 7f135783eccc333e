"""`prepaid replay FILE|DIR`: rating scenarios through broker, workers and database."""

import asyncio
import json
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiomqtt
import typer

from credit_engine.errors import CreditError
from credit_engine.scenario import parse_scenario, run
from credit_engine.scenario_report import differences
from meter_gateway.gateway import Gateway, GatewaySettings
from meter_gateway.ingest import BATCH_MAX
from meter_gateway.receiver import BrokerAddress
from prepaid import logs
from prepaid.commands.rate import SUFFIXES, read_scenario
from prepaid.replay import Replay, ScenarioClock
from prepaid.runtime import Folders, Instance
from store.scratch import scratch_database
from store.session import Session


@dataclass(frozen=True, slots=True)
class Way:
    """How the facts travel."""

    workers: int
    batch: int
    seed: int | None


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", exists=True)],
    workers: Annotated[int, typer.Option(min=1, max=16, help="Ingest workers side by side.")] = 1,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH_MAX, help="At most this many messages a commit.")
    ] = BATCH_MAX,
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", help="Send the facts in a random order.")
    ] = None,
) -> None:
    """Send scenarios through a real broker and database, and compare with what they expect.

    A file prints its result; a folder is checked and ends with `N passed, M failed`. It uses
    PREPAID_DATABASE__URL and PREPAID_BROKER__URL where they are set (in a scratch database that it
    drops again), and servers of its own otherwise. Let no gateway run on that broker meanwhile.
    """
    logs.configure(as_json=False, level="error")
    if source.is_file():
        # What is refused is refused before anything is started.
        run(parse_scenario(read_scenario(str(source))))
    failed = asyncio.run(_replay(source, Way(workers, batch, shuffle)))
    raise typer.Exit(1 if failed else 0)


async def _replay(source: Path, way: Way) -> int:
    with _servers() as (database_url, broker_url), scratch_database(database_url) as url:
        async with _staged(url, broker_url, way) as (replaying, client):
            if source.is_dir():
                return await _check_folder(replaying, client, source, way)
            mapping = read_scenario(str(source))
            scenario = parse_scenario(mapping)
            result = await replaying.run(client, mapping, scenario, way.seed)
            sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=2) + "\n")
            return 0


async def _check_folder(replaying: Replay, client: aiomqtt.Client, folder: Path, way: Way) -> int:
    passed = failed = 0
    for path in sorted(each for each in folder.rglob("*") if each.suffix in SUFFIXES):
        try:
            mapping = read_scenario(str(path))
            if not isinstance(mapping, dict) or "expected" not in mapping:
                continue
            lines = await _check(replaying, client, mapping, way)
        except CreditError as error:
            lines = [str(error)]
        for line in lines:
            sys.stdout.write(f"{path}: {line}\n")
        passed, failed = (passed, failed + 1) if lines else (passed + 1, failed)
    sys.stdout.write(f"{passed} passed, {failed} failed\n")
    return failed


async def _check(
    replaying: Replay, client: aiomqtt.Client, mapping: dict[str, Any], way: Way
) -> list[str]:
    expected = mapping["expected"]
    wanted = expected.get("error") if isinstance(expected, dict) else None
    try:
        scenario = parse_scenario(mapping)
        run(scenario)
    except CreditError as error:
        if wanted is not None and str(wanted) in str(error):
            return []
        return [f"error: expected {wanted!r}, got {str(error)!r}"]
    if wanted is not None:
        return [f"error: expected {wanted!r}, got a result"]
    return differences(expected, await replaying.run(client, mapping, scenario, way.seed))


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


@contextmanager
def _servers() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="prepaid-replay-") as folder:
        Path(folder).chmod(0o755)
        folders = Folders(Path(folder) / "data", Folders.choose(os.environ).cache)
        with Instance(_progress, folders=folders) as instance:
            yield instance.database_url, instance.broker_url


@asynccontextmanager
async def _staged(
    database_url: str, broker_url: str, way: Way
) -> AsyncIterator[tuple[Replay, aiomqtt.Client]]:
    """Workers that are connected and subscribed, and a client to publish with."""
    clock = ScenarioClock()
    run_name = secrets.token_hex(4)
    workers = [
        Gateway(
            GatewaySettings(
                database_url=database_url,
                broker_url=broker_url,
                name=f"replay-{run_name}-{count}",
                now_ms=clock.now_ms,
                batch_max=way.batch,
                group=f"replay-{run_name}",
                session_expiry_s=0,
            )
        )
        for count in range(way.workers)
    ]
    stopping = asyncio.Event()
    session = Session(database_url, "replay")
    address = BrokerAddress.parse(broker_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(session.close)
        loops = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(stopping.set)
        for worker in workers:
            ready = asyncio.Event()
            loops.create_task(worker.run(stopping, ready.set))
            await ready.wait()
        client = await stack.enter_async_context(
            aiomqtt.Client(
                address.host, address.port, username=address.username, password=address.password
            )
        )
        yield Replay(workers, session, clock), client
