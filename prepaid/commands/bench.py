"""`prepaid bench NAME|all`: what the parts cost here, beside floors of the same run."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import report
from benchmarks.catalog import BENCHES
from benchmarks.plot import write_plot
from benchmarks.report import Asked, Servers
from meter_gateway.gateway import collect_seldom
from prepaid import logs
from prepaid.runtime import Binaries, Folders, Instance, RuntimeUnavailableError, resolve
from prepaid.runtime.mosquitto_files import AUTOSAVE_INTERVAL_S, LONG_QUEUE_AUTOSAVE_S
from schemas.errors import DomainError
from store.server_facts import read_server_facts

ALL = "all"
# From so many messages on a private broker writes its snapshots as docs/broker.md says.
LONG_QUEUE = 500_000


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME|all", help=", ".join(BENCHES))],
    meters: Annotated[int, typer.Option(min=20, help="Size of the fleet.")] = 20_000,
    repetitions: Annotated[
        int, typer.Option(min=1, help="Of everything, in an order that rotates.")
    ] = 5,
    workers: Annotated[
        int, typer.Option(min=1, max=16, help="Gateway or API processes side by side.")
    ] = 1,
    paced: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="Of each stretch at a fixed rate.")
    ] = 8.0,
    months: Annotated[
        int, typer.Option(min=1, help="Of history of the oldest account in `history`.")
    ] = 24,
    slots: Annotated[
        int, typer.Option(min=1, help="Readings of each meter that pile up in `backlog`.")
    ] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Reports as one JSON list.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write NAME.json, report.md and report.svg here.")
    ] = None,
) -> None:
    """Measure the production code beside floors of the same run: medians, ranges and ratios.

    It uses PREPAID_DATABASE__URL and PREPAID_BROKER__URL where they are set (in scratch databases
    that it drops again), and servers of its own otherwise. Every run also checks that what it
    measured was right; a failed check ends with status 1. docs/performance.md says how to read it.
    """
    if name not in {*BENCHES, ALL}:
        raise DomainError("unknown_bench", f"no bench {name!r}: take {', '.join(BENCHES)} or all")
    logs.configure(as_json=False, level="error")
    collect_seldom()
    began = time.monotonic()
    forms: list[dict[str, Any]] = []
    with _servers(piled=slots * meters if name in {"backlog", ALL} else 0) as servers:
        for each in BENCHES if name == ALL else (name,):

            def progress(line: str, each: str = each) -> None:
                sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {each}: {line}\n")

            progress("begins")
            asked = Asked(meters, repetitions, workers, paced, months, slots, progress)
            form = BENCHES[each](servers, asked).form()
            form["machine"] |= _database(servers)
            forms.append(form)
            if not as_json:
                sys.stdout.write(report.as_text(form) + "\n")
    if as_json:
        sys.stdout.write(json.dumps(forms, indent=2, ensure_ascii=False) + "\n")
    if out is not None:
        _write(forms, out)
    raise typer.Exit(0 if all(form["passed"] for form in forms) else 1)


def _database(servers: Servers) -> dict[str, str]:
    """Which database was measured; no address, it may hold a password."""
    facts = read_server_facts(servers.database_url)
    return {"postgresql": facts.version, "timescaledb": facts.timescaledb_version or "none"}


def _write(forms: list[dict[str, Any]], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for form in forms:
        text = json.dumps(form, indent=2, ensure_ascii=False) + "\n"
        (out / f"{form['bench']}.json").write_text(text, encoding="utf-8")
    (out / "report.md").write_text(report.as_markdown(forms), encoding="utf-8")
    try:
        write_plot(forms, out / "report.svg")
    except DomainError as error:
        sys.stderr.write(f"no picture: {error}\n")


@contextmanager
def _servers(piled: int) -> Iterator[Servers]:
    """`piled`: how many messages will wait at the broker."""
    autosave_s = LONG_QUEUE_AUTOSAVE_S if piled >= LONG_QUEUE else AUTOSAVE_INTERVAL_S
    with tempfile.TemporaryDirectory(prefix="prepaid-bench-") as folder:
        Path(folder).chmod(0o755)
        folders = Folders(Path(folder) / "data", Folders.choose(os.environ).cache)
        with Instance(_say, folders=folders, autosave_interval_s=autosave_s) as instance:
            binaries = instance.binaries or _programs(folders)
            yield Servers(
                instance.database_url,
                instance.broker_url,
                autosave_s=None if instance.mosquitto is None else autosave_s,
                psql=_program("psql", None if binaries is None else binaries.postgres.bin),
                mosquitto_sub=_program(
                    "mosquitto_sub", None if binaries is None else binaries.mosquitto.clients
                ),
            )


def _programs(folders: Folders) -> Binaries | None:
    """The client programs beside our private servers; with own servers they may be missing."""
    try:
        return resolve(_say, os.environ, folders)
    except RuntimeUnavailableError as error:
        _say(f"no client programs: {error}")
        return None


def _program(name: str, folder: Path | None) -> Path | None:
    if folder is not None and (folder / name).exists():
        return folder / name
    found = shutil.which(name)
    return None if found is None else Path(found)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
