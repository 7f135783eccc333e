"""`prepaid simulate`: a fleet of meters until it is told to stop, or meters that misbehave."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from prepaid import logs
from prepaid.clock import Clock
from prepaid.scenarios.catalogue import SCENARIOS
from prepaid.scenarios.playing import chosen, play
from schemas.errors import DomainError
from simulators.faults import Faults
from simulators.fleet import Broker, Member, Site, run_fleet
from simulators.fleet_file import FleetFile, GatewayForm, MeterForm, read_fleet_file
from simulators.gateway import Gateway
from simulators.meter import Meter
from simulators.state_file import StateFile

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883


def register(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    meters_file: Annotated[
        Path | None, typer.Option(help="JSON that describes the meters (simulators/fleet_file.py).")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the meters keep their memory.")
    ] = None,
    broker: Annotated[str, typer.Option(help="HOST or HOST:PORT of the MQTT broker.")] = "",
    broker_ca: Annotated[
        Path | None, typer.Option(help="Authority (PEM) of the broker's certificate: use TLS.")
    ] = None,
    clock: Annotated[
        str,
        typer.Option(
            envvar="PREPAID_CLOCK",
            help="WALL_ORIGIN_MS:ORIGIN_MS:SPEED for a clock that runs faster than the wall's; "
            "the gateway needs the same.",
        ),
    ] = "",
    duplicate: Annotated[int, typer.Option(help="Of 1000 readings, sent twice.")] = 0,
    reorder: Annotated[int, typer.Option(help="Of 1000 readings, swapped with the next.")] = 0,
    delay: Annotated[int, typer.Option(help="Of 1000 readings, half an hour late.")] = 0,
    drop: Annotated[int, typer.Option(help="Of 1000 steps, after which the link drops.")] = 0,
    reboot: Annotated[int, typer.Option(help="Of 1000 steps, after which it reboots.")] = 0,
    scenario: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Play this one (may be repeated), or `all`."),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Say which scenarios there are and what they prove.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same story.")] = 1,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as a page in Markdown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Run simulated meters and gateways: readings, acknowledgements, tokens, outages.

    Either a fleet that lives until it is told to stop (--meters-file, --state-dir and --broker), or
    scenarios in which meters and networks misbehave (--scenario): each against a real broker, a
    database of its own and a gateway process, with an auditor who knows what the meters really did.
    A run of scenarios uses PREPAID_DATABASE__URL and PREPAID_BROKER__URL where they are set, and
    servers of its own where a scenario kills them. It ends with `N passed, M failed`.
    """
    if listing:
        width = max(map(len, SCENARIOS)) + 2
        sys.stdout.writelines(
            f"{name:<{width}}{each.happens}.\n" for name, each in SCENARIOS.items()
        )
    elif scenario:
        play(chosen(scenario), seed, table, as_json=as_json)
    elif meters_file is None or state_dir is None or not broker:
        raise DomainError(
            "nothing_to_simulate",
            "give --meters-file, --state-dir and --broker for a fleet, or --scenario NAME",
        )
    else:
        logs.configure(as_json=False)
        faults = Faults(duplicate, reorder, delay, drop=drop, reboot=reboot)
        _live(
            read_fleet_file(meters_file),
            state_dir,
            _broker(broker, broker_ca),
            Clock.parse(clock),
            faults,
        )


def _live(fleet: FleetFile, state_dir: Path, broker: Broker, clock: Clock, faults: Faults) -> None:
    with StateFile(state_dir) as state_file:
        site = Site(
            broker=broker,
            state_file=state_file,
            now_ms=clock.now_ms,
            speed=clock.speed,
            faults=faults,
        )
        asyncio.run(_until_signal(site, fleet))


def _broker(text: str, ca: Path | None = None) -> Broker:
    scheme, divider, rest = text.rpartition("://")
    if divider and scheme not in {"mqtt", "mqtts"}:
        raise DomainError("bad_broker", f"Write the broker as HOST:PORT, not {text!r}.")
    if scheme == "mqtts" and ca is None:
        raise DomainError("bad_broker", "Give --broker-ca for a broker with TLS.")
    host, colon, port = rest.rpartition(":")
    if not colon:
        return Broker(port, DEFAULT_PORT if ca is None else DEFAULT_TLS_PORT, ca)
    if not host or not port.isdecimal():
        raise DomainError("bad_broker", f"Write the broker as HOST:PORT, not {text!r}.")
    return Broker(host, int(port), ca)


async def _until_signal(site: Site, fleet: FleetFile) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await run_fleet(site, _members(site.state_file, fleet), stop)


def _members(state_file: StateFile, fleet: FleetFile) -> list[Member]:
    """Whoever has a connection: meters of their own, and gateways with theirs."""
    alone: list[Member] = []
    behind: dict[str, list[Meter]] = {each.name: [] for each in fleet.gateways}
    intervals_ms: dict[str, int] = {}
    for form in fleet.meters:
        meter = Meter(
            form.nameplate(), form.load(), state_file.load(form.number), form.enter_token()
        )
        if form.gateway is None:
            alone.append(Member(meter, _password(form), form.certificate, form.private_key))
        else:
            behind[form.gateway].append(meter)
            intervals_ms[form.gateway] = form.interval_s * 1000
    gateways = [
        Member(
            Gateway(
                each.name,
                behind[each.name],
                state_file.load(each.name),
                interval_ms=intervals_ms[each.name],
                cbor=each.cbor,
            ),
            _password(each),
            each.certificate,
            each.private_key,
        )
        for each in fleet.gateways
    ]
    return [*alone, *gateways]


def _password(form: MeterForm | GatewayForm) -> str | None:
    return None if form.password is None else form.password.get_secret_value()
