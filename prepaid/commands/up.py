"""`prepaid up`: the whole system on this machine, with a demonstration centre and a live view."""

import json
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.live import Live

from prepaid.clock import Clock, wall_ms
from prepaid.demo.centre import DemoFiles, device_names, equip, provision
from prepaid.demo.payers import PartnerClient, Payers
from prepaid.demo.processes import Child, environment
from prepaid.demo.view import GatewayNumbers, headline, render
from prepaid.runtime import Folders, Instance
from prepaid.secrets_files import read_secret
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import registry
from store.errors import Unavailable
from store.migrate import migrate
from store.overview import Overview, overview
from store.pool import borrow, make_pool
from store.roles import Login

ROUND_S = 1.0
# Without a terminal, one line this often.
LINE_EVERY_S = 5.0
ROWS = 8
READY_S = 60.0
GATEWAY_READY = "ready"


@dataclass(slots=True)
class Demonstration:
    """What is running, and where."""

    clock: Clock
    database_url: str
    broker_url: str
    api_url: str
    metrics_port: int
    files: DemoFiles
    children: list[Child]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    meters: int
    speed: int
    api_host: str
    api_port: int
    tls: bool


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    meters: Annotated[
        int, typer.Option(min=1, max=5000, help="Simulated meters of the demonstration.")
    ] = 200,
    speed: Annotated[
        int, typer.Option(min=1, max=3600, help="Simulated seconds in a second; 1: real time.")
    ] = 60,
    api_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the API; 0: any free one.")
    ] = 0,
    api_host: Annotated[
        str, typer.Option(help="Address that the API listens on; beyond loopback it has no TLS.")
    ] = "127.0.0.1",
    tls: Annotated[
        bool, typer.Option("--tls", help="Meters show certificates instead of passwords.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a second, for programs.")
    ] = False,
) -> None:
    """Run everything: database, broker, migration, demo centre, gateway, engine, API and meters.

    Customers' credit runs out, their supply is cut, they pay, tokens go to the meters, and supply
    returns. Ctrl-C ends all cleanly; data stays, and a second start goes on. Own servers win:
    PREPAID_DATABASE__URL, PREPAID_BROKER__URL. Data lies in PREPAID_HOME.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    began_s = time.monotonic()
    with ExitStack() as stack:
        running = _start(stack, Wanted(meters, speed, api_host, api_port, tls), ended)
        if running is None:
            return
        _progress(f"Ready after {time.monotonic() - began_s:.1f} s")
        _announce(running)
        lines = plain or not sys.stdout.isatty()
        _watch(running, ended, "json" if as_json else "plain" if lines else "live")
        _progress("Ending: meters, API, gateway, broker, database")


def _start(stack: ExitStack, wanted: Wanted, ended: threading.Event) -> Demonstration | None:
    """Everything, in order; None when it is ended on the way."""
    folders = Folders.choose(dict(environment()))
    files = DemoFiles(folders.data / "demo")
    access = files.trust.access(device_names(files, wanted.meters), tls=wanted.tls)
    instance = stack.enter_context(Instance(_progress, folders=folders, access=access))
    if ended.is_set():
        return None
    owner_url, database_url = instance.database_url, instance.application_url
    migrate(owner_url, _progress, None if owner_url == database_url else Login.of(database_url))
    pool = make_pool(database_url, max_size=2)
    pool.open()
    stack.callback(pool.close)
    with borrow(pool) as conn:
        clock = _clock(registry.simulated_now(conn), wanted.speed)
        added = provision(conn, files, wanted.meters, clock.now_ms())
        registry.keep_simulated_now(conn, clock.now_ms())
        tls = wanted.tls and instance.mosquitto is not None
        if tls:
            files.trust.certify(conn, device_names(files, wanted.meters))
        equip(files, files.trust, tls=tls)
    _progress(f"Demonstration centre: {added} meters added" if added else "Going on")
    metrics_port = _free_port()
    values = environment(
        PREPAID_DATABASE__URL=database_url,
        # Only what migrates knows the owner.
        PREPAID_DATABASE__OWNER_URL="",
        PREPAID_BROKER__URL=instance.broker_url,
        PREPAID_TRUST__SIGNING_KEY=str(files.trust.signing_key_file),
        **_parts(instance),
        PREPAID_CLOCK=str(clock),
        PREPAID_STS__KEY_FILE=str(files.vending_keys),
        PREPAID_STS__KEY_PASSPHRASE=read_secret(files.passphrase).decode(),
        PREPAID_PARTNERS__FILE=str(files.partners),
        PREPAID_CUSTOMERS__CODE_DELIVERY="demonstration",
    )
    device_url = instance.mosquitto.device_url if instance.mosquitto else instance.broker_url
    children = _children(instance, files, values, wanted, metrics_port, tls=tls)
    for child in children:
        _progress(f"Starting {child.name} (log: {child.log})")
        child.start()
        stack.callback(child.stop)
        if child.name in {"gateway", "api"} and not _ready(child, ended):
            return None
    (api_url,) = (child.said() for child in children if child.name == "api")
    binaries = instance.binaries
    files.write_shell(
        api_url,
        device_url,
        None if binaries is None else binaries.mosquitto.clients,
        {
            "DATABASE": database_url,
            "API_LOG": next(str(child.log) for child in children if child.name == "api"),
            **_trust(files, instance, tls=tls),
        },
    )
    return Demonstration(clock, database_url, device_url, api_url, metrics_port, files, children)


def _children(
    instance: Instance,
    files: DemoFiles,
    values: dict[str, str],
    wanted: Wanted,
    metrics_port: int,
    *,
    tls: bool,
) -> list[Child]:
    """The processes, in the order in which they start."""
    logs = files.folder.parent / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker = instance.mosquitto
    devices = broker.device_url if broker else instance.broker_url
    simulate = ["simulate", "--meters-file", str(files.meters), "--broker", devices]
    simulate += ["--state-dir", str(files.folder.parent / "meters")]
    if tls:
        simulate += ["--broker-ca", str(files.trust.ca / "ca.pem")]
    # A port of our own choice: the API keeps it when it is started again.
    serve = ["api", "--host", wanted.api_host, "--port", str(wanted.api_port or _free_port())]
    children = [
        Child("gateway", ["gateway", "--metrics-port", str(metrics_port)], values, logs),
        Child("api", serve, values, logs),
        Child("meters", simulate, values, logs),
    ]
    if broker is not None:
        # First, so that it reads before anybody is refused.
        watch = ["broker", "watch", str(broker.log), "--trim"]
        children.insert(0, Child("broker-watch", watch, values, logs))
    return children


def _parts(instance: Instance) -> dict[str, str]:
    """Each part's own address at the private broker; an own broker has one for all."""
    if instance.mosquitto is None:
        return {}
    return {
        "PREPAID_BROKER__DISPATCH_URL": instance.mosquitto.part_url("part.dispatch"),
        "PREPAID_BROKER__WATCH_URL": instance.mosquitto.part_url("part.watch"),
        "PREPAID_BROKER__FOLDER": str(instance.mosquitto.files.folder),
    }


def _trust(files: DemoFiles, instance: Instance, *, tls: bool) -> dict[str, str]:
    """For the shell: what `prepaid broker` and `prepaid certs` ask for."""
    if not tls:
        return _parts(instance)
    return {
        **_parts(instance),
        "BROKER_CA": str(files.trust.ca / "ca.pem"),
        "PREPAID_TRUST__CA": str(files.trust.ca),
        "PREPAID_TRUST__CA_PASSPHRASE_FILE": str(files.trust.ca_passphrase),
    }


def _ready(child: Child, ended: threading.Event) -> bool:
    """Wait for its first line. Errors: DomainError `not_started`."""
    deadline_s = time.monotonic() + READY_S
    while not child.said():
        if ended.wait(0.05):
            return False
        if child.watch() is not None or time.monotonic() > deadline_s:
            raise DomainError("not_started", f"{child.name} did not start: see {child.log}")
    return True


def _clock(kept_ms: int | None, speed: int) -> Clock:
    """The demonstration's time goes on where it stopped; at speed 1 it is the wall's, if it can."""
    now_ms = wall_ms()
    if kept_ms is None or (speed == 1 and kept_ms <= now_ms):
        return Clock(now_ms, now_ms, speed)
    return Clock(now_ms, kept_ms, speed)


def _announce(running: Demonstration) -> None:
    for line in _addresses(running):
        _progress(line)


def _addresses(running: Demonstration) -> list[str]:
    return [
        f"API {running.api_url}   broker {running.broker_url}   clock x{running.clock.speed}",
        f"To try it from another terminal: . {running.files.shell}",
    ]


def _watch(
    running: Demonstration, ended: threading.Event, form: Literal["json", "plain", "live"]
) -> None:
    numbers = GatewayNumbers(running.metrics_port)
    payers = Payers(
        PartnerClient.from_file(running.api_url, running.files.partners), running.clock.now_ms
    )
    pool = make_pool(running.database_url, max_size=2)
    pool.open()
    notes: list[str] = []
    next_line_s = 0.0
    with ExitStack() as stack:
        stack.callback(pool.close)
        live = (
            None
            if form != "live"
            else stack.enter_context(Live(console=Console(), auto_refresh=False))
        )
        while not ended.wait(ROUND_S):
            for child in running.children:
                note = child.watch()
                if note is not None:
                    notes.append(note)
                    if live is None:
                        _progress(note)
            numbers.look()
            try:
                with borrow(pool) as conn:
                    now_ms = running.clock.now_ms()
                    registry.keep_simulated_now(conn, now_ms)
                    seen = overview(conn, max(ROWS, len(running.children)) * 8)
            except Unavailable as error:
                notes.append(str(error))
                continue
            payers.consider(seen.lowest)
            if live is not None:
                shown = seen._replace(lowest=seen.lowest[:ROWS], top_ups=seen.top_ups[:ROWS])
                screen = render(numbers, shown, now_ms, notes, _addresses(running))
                live.update(screen, refresh=True)
            elif form == "json":
                sys.stdout.write(json.dumps(_facts(running, numbers, seen, now_ms)) + "\n")
                sys.stdout.flush()
            elif time.monotonic() >= next_line_s:
                sys.stdout.write(headline(numbers, seen, now_ms) + "\n")
                sys.stdout.flush()
                next_line_s = time.monotonic() + LINE_EVERY_S


def _facts(
    running: Demonstration, numbers: GatewayNumbers, seen: Overview, now_ms: int
) -> dict[str, object]:
    return {
        "now": format_instant(now_ms),
        "api": running.api_url,
        "broker": running.broker_url,
        "processes": {child.name: child.pid for child in running.children},
        "restarts": sum(child.restarts for child in running.children),
        "readings_per_s": round(numbers.rate("accepted"), 1),
        "latency_p50_s": numbers.latency_s(0.5),
        "latency_p99_s": numbers.latency_s(0.99),
        "reconnection_p50_ms": seen.reconnections.p50_ms,
        "reconnection_p99_ms": seen.reconnections.p99_ms,
        "on_supply_top_ups": sum(top_up.on_supply_ms is not None for top_up in seen.top_ups),
        "quarantine": dict(seen.quarantine),
        **seen.counts._asdict(),
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _progress(text: str) -> None:
    sys.stderr.write(f"prepaid: {text}\n")
    sys.stderr.flush()
