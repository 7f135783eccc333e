"""`dn/cfg`, retained: what a meter should hold (MQTT contract, clauses 1 and 3).

A configuration names its meter and is signed with a key that the meter holds already, so that a
retained message is worth no more than a command. Its version only grows; a meter takes the newest
and refuses what is older, whoever kept it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from schemas import wire
from schemas.commands import encode
from schemas.errors import DomainError
from schemas.signing import MAX_KEYS, SigningKey, VerificationKey


@dataclass(frozen=True, slots=True)
class Configuration:
    """The verification keys of one meter: one, or two while a roll-over lasts.

    Raises DomainError `bad_configuration`.
    """

    meter: str
    version: int
    command_keys: tuple[VerificationKey, ...]

    def __post_init__(self) -> None:
        if self.version < 1 or not 1 <= len(set(self.command_keys)) <= MAX_KEYS:
            raise DomainError(
                "bad_configuration", f"Give a version from 1 and 1 to {MAX_KEYS} keys."
            )

    def payload(self, key: SigningKey) -> bytes:
        """The bytes for `dn/cfg`; `sig` covers the canonical payload without it."""
        return encode(self.form() | {"sig": key.sign(encode(self.form()))})

    def form(self) -> dict[str, object]:
        """What a signature covers, before it is bytes."""
        return {
            "v": 1,
            "meter": self.meter,
            "version": self.version,
            "command_keys": [key.text for key in self.command_keys],
        }


_CONFIGURATION: TypeAdapter[wire.Configuration] = TypeAdapter(wire.Configuration)


def parse_configuration(
    data: bytes, meter: str, held: Sequence[VerificationKey], held_version: int
) -> Configuration:
    """What a meter takes from `dn/cfg`, given the keys and the version that it holds.

    Raises DomainError `bad_configuration`, `bad_signature`, `other_meter`, `stale`.
    """
    try:
        form = _CONFIGURATION.validate_json(data)
    except ValidationError:
        raise DomainError(
            "bad_configuration", "Send version, meter, command_keys and sig, as in wire.py."
        ) from None
    keys = tuple(VerificationKey(text) for text in form["command_keys"])
    found = Configuration(form["meter"], form["version"], keys)
    signed = encode(found.form())
    if not any(key.accepts(signed, form["sig"]) for key in held):
        raise DomainError("bad_signature", "Sign with a key that this meter holds.")
    if found.meter != meter:
        raise DomainError("other_meter", "Send a configuration to the meter it names.")
    if found.version <= held_version:
        raise DomainError("stale", f"Send a version above {held_version}.")
    return found
