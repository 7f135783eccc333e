"""Profiles: one file per device model that says where its totals are (meter_gateway/profiles).

A profile is data. It is checked when it is loaded, so that a mistake is found at the start and
names its place; docs/foreign-meters.md shows how to write one.
"""

import re
from decimal import Decimal
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from meter_gateway.foreign.values import WH, Unit
from schemas.errors import DomainError
from schemas.wire import RegisterName

DEVICE = "{device}"
PROFILE_BYTES_MAX = 64 * 1024

Step = str | int
Steps = Annotated[tuple[Step, ...], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Quantity(_Part):
    """A cumulative register in a JSON payload: keys and list places from the top."""

    path: Steps
    unit: Unit
    # A register that this message may leave out.
    optional: bool = False

    @property
    def factor(self) -> Decimal:
        return WH[self.unit]


class Clock(_Part):
    """Where the instant of a reading is, and how it is written.

    `rfc3339` with an offset; `local` without one, placed by the zone of the device (one with an
    offset is taken as it says); `unix_s`, `unix_ms`: since 1970 in UTC, decimals allowed.
    """

    path: Steps
    written: Literal["rfc3339", "local", "unix_s", "unix_ms"]


class State(_Part):
    """A topic that says whether the device is connected: its exact payloads."""

    online: str
    offline: str


class _OnTopic(_Part):
    topic: str

    @field_validator("topic")
    @classmethod
    def _names_the_device(cls, topic: str) -> str:
        levels = topic.split("/")
        if levels.count(DEVICE) != 1 or any("{" in each for each in levels if each != DEVICE):
            raise ValueError(f"a topic has the level {DEVICE} once")
        if not all(levels) or any(wild in topic for wild in "+#"):
            raise ValueError(f"a topic is levels and {DEVICE}, without wildcards")
        return topic

    @cached_property
    def filter(self) -> str:
        """What to subscribe to."""
        return self.topic.replace(DEVICE, "+")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        before, after = self.topic.split(DEVICE)
        return re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")

    def device(self, topic: str) -> str | None:
        """The device that a topic names, or None where it is none of this pattern."""
        found = self._pattern.fullmatch(topic)
        return None if found is None else found[1]


class JsonMessage(_OnTopic):
    """One topic of a device: either registers with a clock, or a state."""

    # A message without this path says nothing of energy and is left alone.
    concerns: Steps | None = None
    clock: Clock | Literal["arrival"] | None = None
    registers: dict[RegisterName, Quantity] = Field(default_factory=dict)
    # Kept beside the registers as they are written; nothing is computed from them.
    instantaneous: dict[str, Steps] = Field(default_factory=dict)
    state: State | None = None

    def model_post_init(self, _: Any) -> None:
        if (self.state is None) == (not self.registers):
            raise ValueError("a message has either registers or a state")
        if bool(self.registers) != (self.clock is not None):
            raise ValueError("registers come with a clock: a path, or arrival")


class _Head(_Part):
    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    model: str
    # Where the payloads are documented, or were captured.
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    # False where anybody but the utility can set the totals back (ADR 0014).
    trusted: bool


class JsonProfile(_Head):
    """A device that publishes JSON."""

    format: Literal["json"]
    messages: Annotated[tuple[JsonMessage, ...], Field(min_length=1)]

    @property
    def filters(self) -> tuple[str, ...]:
        return tuple(message.filter for message in self.messages)


class DlmsRegister(_Part):
    """A register in a push; unit and scale are those of the frame, and these where it has none."""

    unit: Unit | None = None
    scale: Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")] = "1"


class DlmsProfile(_Head, _OnTopic):
    """A meter whose DLMS/COSEM data-notifications a modem publishes as bytes."""

    format: Literal["dlms"]
    # general-glo-ciphering: authenticated and encrypted, and nothing else is taken.
    protection: Literal["none", "general-glo-ciphering"]
    # Whether the deviation in a clock is to be believed; some meters send 0 with a local time.
    deviation: Literal["as_sent", "ignored"] = "as_sent"
    registers: Annotated[dict[RegisterName, DlmsRegister], Field(min_length=1)]

    @property
    def filters(self) -> tuple[str, ...]:
        return (self.filter,)


class Metric(_Part):
    """A Sparkplug metric that is a cumulative register."""

    name: str
    unit: Unit

    @property
    def factor(self) -> Decimal:
        return WH[self.unit]


class SparkplugProfile(_Head):
    """Edge nodes of one Sparkplug B group. A device is called NODE/DEVICE, or NODE alone."""

    format: Literal["sparkplug-b"]
    group: Annotated[str, Field(pattern=r"^[^/+#{}]+$")]
    registers: Annotated[dict[RegisterName, Metric], Field(min_length=1)]

    @property
    def filters(self) -> tuple[str, ...]:
        return tuple(
            f"spBv1.0/{self.group}/{kind}"
            for kind in (
                "NBIRTH/+", "NDEATH/+", "NDATA/+", "DBIRTH/+/+", "DDEATH/+/+", "DDATA/+/+",
            )
        )  # fmt: skip


Profile = Annotated[JsonProfile | DlmsProfile | SparkplugProfile, Field(discriminator="format")]
_PROFILE: TypeAdapter[JsonProfile | DlmsProfile | SparkplugProfile] = TypeAdapter(Profile)


def names() -> list[str]:
    """The profiles that come with this package."""
    folder = files("meter_gateway").joinpath("profiles")
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load(name: str) -> JsonProfile | DlmsProfile | SparkplugProfile:
    """A profile by its name here, or by the path of a file (`.yaml`).

    Errors: DomainError `unknown_profile`, `bad_profile`.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            return parse(Path(name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise DomainError("unknown_profile", f"cannot read {name}: {error}") from None
    known = names()
    if name not in known:
        raise DomainError(
            "unknown_profile", f"no profile {name}: give the path of a file, or {', '.join(known)}"
        )
    entry = files("meter_gateway").joinpath("profiles").joinpath(f"{name}.yaml")
    return parse(entry.read_text(encoding="utf-8"), name)


def parse(text: str, where: str) -> JsonProfile | DlmsProfile | SparkplugProfile:
    """The profile that a file holds; `where` names the file. Errors: DomainError `bad_profile`."""
    if len(text) > PROFILE_BYTES_MAX:
        raise DomainError("bad_profile", f"{where} is longer than {PROFILE_BYTES_MAX} characters")
    try:
        # An alias may stand for more than any memory holds.
        if any(isinstance(event, AliasEvent) for event in YAML(pure=True).parse(text)):
            raise DomainError("bad_profile", f"{where} has an alias (*): write it out")
        # As JSON, where strict lists become tuples.
        return _PROFILE.validate_json(orjson.dumps(YAML(typ="safe", pure=True).load(text)))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the file"
        raise DomainError("bad_profile", f"{where}: {place}: {fault['msg']}") from None
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DomainError("bad_profile", f"{where} is no YAML: {reason:.200}") from None
