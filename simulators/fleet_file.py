"""The file that describes a simulated fleet. It holds decoder keys: mode 0600, demo only."""

import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from schemas.errors import DomainError
from schemas.identity import GATEWAY_NAME, METER_NUMBER
from schemas.quantities import WH_PER_KWH, parse_instant_ms
from schemas.signing import MAX_KEYS, VERIFICATION_KEY, VerificationKey
from simulators.load import HouseholdLoad
from simulators.meter import EnterToken, Nameplate
from simulators.token_entry import token_entry
from tokens.acceptance import MeterTokenState
from tokens.keys import DecoderKey, KeyAttributes

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class KeyForm(BaseModel):
    """A decoder key and its attributes, as in `tokens.keys.KeyAttributes`; `decoder_key` in hex."""

    model_config = _STRICT

    decoder_key: Annotated[SecretStr, Field(strict=False)]
    sgc: str
    krn: int
    kt: int
    ken: int
    ti: str
    base_date: int
    ea: int
    dkga: int

    def state(self) -> MeterTokenState:
        """The token state of a meter that has entered nothing yet. Raises TokenError."""
        try:
            octets = bytes.fromhex(self.decoder_key.get_secret_value())
        except ValueError:
            raise DomainError("bad_fleet_file", "Write decoder_key in hex digits.") from None
        attributes = KeyAttributes(
            sgc=self.sgc,
            krn=self.krn,
            kt=self.kt,
            ken=self.ken,
            ti=self.ti,
            base_date=self.base_date,
            ea=self.ea,
            dkga=self.dkga,
        )
        return MeterTokenState(decoder_key=DecoderKey(octets), attributes=attributes)


class MeterForm(BaseModel):
    """One meter. `number` is its name on the broker; `since` is when its register began.

    `password` is for brokers that ask for one; the user name is the number. Behind a `gateway` it
    has no connection of its own.
    """

    model_config = _STRICT

    number: Annotated[str, Field(pattern=METER_NUMBER)]
    pan: Annotated[str, Field(pattern=r"^[0-9]{18}$")] | None = None
    key: KeyForm | None = None
    password: Annotated[SecretStr, Field(strict=False)] | None = None
    annual_kwh: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: int
    since: str
    opening_wh: Annotated[int, Field(ge=0)] = 0
    interval_s: Annotated[int, Field(ge=1, le=86_400)] = 900
    utc_offset_min: Annotated[int, Field(ge=-840, le=840)] = 0
    # What it leaves the factory with: it obeys only what one of these keys signed.
    command_keys: Annotated[
        list[Annotated[str, Field(pattern=VERIFICATION_KEY)]], Field(max_length=MAX_KEYS)
    ] = []
    # Its certificate and private key, for a broker that asks for one; PEM files.
    certificate: Annotated[Path, Field(strict=False)] | None = None
    private_key: Annotated[Path, Field(strict=False)] | None = None
    gateway: Annotated[str, Field(pattern=GATEWAY_NAME)] | None = None

    def nameplate(self) -> Nameplate:
        """Number and reading grid; the phase spreads a fleet evenly over the interval, except
        behind a gateway, whose meters share its slots.
        """
        # 2654435761 is Knuth's multiplicative hash: neighbouring seeds land far apart.
        phase_s = self.seed * 2_654_435_761 % 2**32 * self.interval_s >> 32
        if self.gateway is not None:
            phase_s = 0
        return Nameplate(
            self.number,
            self.opening_wh,
            self.interval_s * 1000,
            phase_s * 1000,
            tuple(VerificationKey(text) for text in self.command_keys),
        )

    def load(self) -> HouseholdLoad:
        """The household behind the meter."""
        return HouseholdLoad(
            annual_wh=self.annual_kwh * WH_PER_KWH,
            seed=self.seed,
            since_ms=parse_instant_ms(self.since),
            utc_offset_ms=self.utc_offset_min * 60_000,
        )

    def enter_token(self) -> EnterToken | None:
        """How it takes tokens; None for a meter without a key."""
        return None if self.key is None else token_entry(self.key.state)


class GatewayForm(BaseModel):
    """One gateway: `name` on the broker, and whether it speaks CBOR."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=GATEWAY_NAME)]
    password: Annotated[SecretStr, Field(strict=False)] | None = None
    certificate: Annotated[Path, Field(strict=False)] | None = None
    private_key: Annotated[Path, Field(strict=False)] | None = None
    cbor: bool = False


class FleetFile(BaseModel):
    """All meters of one simulator process, and the gateways that some of them are behind."""

    model_config = _STRICT

    v: Literal[1]
    gateways: list[GatewayForm] = []
    meters: Annotated[list[MeterForm], Field(min_length=1)]


def read_fleet_file(path: Path) -> FleetFile:
    """Raises DomainError `bad_fleet_file`: unreadable, open to others, or not of this form."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()
    except OSError as error:
        raise DomainError("bad_fleet_file", f"Cannot read {path}: {error.strerror}.") from None
    try:
        fleet = FleetFile.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise DomainError("bad_fleet_file", f"Correct {where} in {path}: {fault['msg']}.") from None
    holds_secrets = any(meter.key or meter.password for meter in fleet.meters) or any(
        gateway.password for gateway in fleet.gateways
    )
    if holds_secrets and stat.S_IMODE(mode) & 0o077:
        raise DomainError("bad_fleet_file", f"Run chmod 600 {path}: it holds keys.")
    numbers = [meter.number for meter in fleet.meters]
    if len(set(numbers)) != len(numbers):
        raise DomainError("bad_fleet_file", f"Name each meter once in {path}.")
    names = [gateway.name for gateway in fleet.gateways]
    if len(set(names)) != len(names):
        raise DomainError("bad_fleet_file", f"Name each gateway once in {path}.")
    for name in names:
        intervals = {meter.interval_s for meter in fleet.meters if meter.gateway == name}
        if len(intervals) != 1:
            raise DomainError(
                "bad_fleet_file", f"Put meters of one interval behind gateway {name} in {path}."
            )
    for meter in fleet.meters:
        if meter.gateway is not None and meter.gateway not in names:
            raise DomainError("bad_fleet_file", f"List gateway {meter.gateway} in {path}.")
        meter.load()
        if meter.key is not None:
            meter.key.state()
    return fleet
