"""`prepaid device`: which meter a foreign device is."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from meter_gateway.foreign import device_profile as profiles_here
from meter_gateway.foreign.device_profile import DlmsProfile
from meter_gateway.foreign.keys import (
    NONCE_OCTETS,
    SEALING_KEY_OCTETS,
    DeviceKeys,
    GlobalKey,
    seal,
)
from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.secrets_files import read_sealing_key, read_secret, write_secret
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.identity import parse_meter_number
from schemas.quantities import format_instant
from store import devices
from store.devices import DeviceLine, NewDevice

Profile = Annotated[str, typer.Argument(help="The name of a profile, or the path of its file.")]
Name = Annotated[str, typer.Argument(help="The device as its topic names it.")]

app = typer.Typer(no_args_is_help=True, help="Foreign devices: which meter each of them is.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="device")


@app.command()
def profiles() -> None:
    """The profiles that are here, with their topics."""
    for name in profiles_here.names():
        found = profiles_here.load(name)
        trust = "trusted" if found.trusted else "untrusted: stored and shown, bills nobody"
        sys.stdout.write(f"{name}\t{found.model}\t{trust}\t{' '.join(found.filters)}\n")


@app.command()
def add(
    profile: Profile,
    name: Name,
    meter: Annotated[str, typer.Argument(help="The number of a registered meter.")],
    by: Annotated[str, typer.Option("--by", help="Who does this; kept.")],
    zone: Annotated[
        str, typer.Option(help="Zone of a clock without an offset, such as Africa/Nouakchott.")
    ] = "UTC",
    keys_from: Annotated[
        Path | None,
        typer.Option(
            help="A file, readable by its owner alone, of two lines of 32 hex digits: the global "
            "encryption key and the authentication key. Kept sealed; the file may go then."
        ),
    ] = None,
) -> None:
    """Map a device to a meter.

    Where the profile's totals can be set back, the meter is never billed by them: its readings
    are stored and shown, and a meter that was billed already is refused.
    """
    found = profiles_here.load(profile)
    settings = Settings()
    sealed = None if keys_from is None else _sealed(settings, found.profile, name, keys_from)
    if isinstance(found, DlmsProfile) and (found.protection != "none") != (sealed is not None):
        raise DomainError(
            "bad_key",
            f"{found.profile} is {found.protection}: give --keys-from exactly where it is ciphered",
        )
    device = NewDevice(found.profile, name, parse_meter_number(meter), found.trusted, zone, sealed)
    with connected(settings) as conn:
        devices.add(conn, device, by, Clock.parse(settings.clock).now_ms())
    trust = "" if found.trusted else "; it bills nobody"
    sys.stderr.write(f"{name} is meter {device.meter} now{trust}\n")


@app.command()
def remove(profile: Profile, name: Name) -> None:
    """Unmap a device. What it said stays; so does its meter's lack of trust."""
    with connected(Settings()) as conn:
        devices.remove(conn, profiles_here.load(profile).profile, name)


@app.command("list")
def list_devices(
    as_json: Annotated[bool, typer.Option("--json", help="One object per line.")] = False,
) -> None:
    """All devices with their meters and the last stored total."""
    with connected(Settings()) as conn:
        lines = devices.listed(conn)
    for line in lines:
        sys.stdout.write((json.dumps(line._asdict()) if as_json else _shown(line)) + "\n")


@app.command()
def new_key(
    path: Annotated[Path, typer.Argument(help="Where to write it, readable by its owner alone.")],
) -> None:
    """Make the key that device keys are sealed under; name its file in PREPAID_ADAPTER__KEY_FILE.

    Keep a copy where the database's copies are not: without it the sealed keys are lost.
    """
    if path.exists():
        raise DomainError("secret_file", f"{path} is there already: it is not overwritten")
    write_secret(path, os.urandom(SEALING_KEY_OCTETS).hex().encode() + b"\n")


def _shown(line: DeviceLine) -> str:
    last = "nothing yet"
    if line.last_ms is not None:
        last = f"{line.last_wh} Wh at {format_instant(line.last_ms)} ({line.last_verdict})"
    trust = "trusted" if line.trusted else "untrusted"
    return f"{line.profile}\t{line.name}\t{line.meter}\t{trust}\t{last}"


def _sealed(settings: Settings, profile: str, name: str, path: Path) -> bytes:
    if settings.adapter.key_file is None:
        raise DomainError(
            "not_configured",
            "PREPAID_ADAPTER__KEY_FILE is not set: make one with `prepaid device new-key`",
        )
    lines = read_secret(path).split()
    try:
        encryption, authentication = (bytes.fromhex(line.decode("ascii")) for line in lines)
    except ValueError:
        raise DomainError("bad_key", f"{path} is not two lines of 32 hex digits") from None
    keys = DeviceKeys(GlobalKey(encryption), GlobalKey(authentication))
    sealing = read_sealing_key(settings.adapter.key_file)
    return seal(keys, sealing, (profile, name), os.urandom(NONCE_OCTETS))
