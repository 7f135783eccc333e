"""Load on a broker: prepared messages, published by a C program, or by Python without a compiler.

A message goes to the next connection each time; when its window is full, the generator waits, so
that nothing is sent out of order on a connection and the offered rate is what was asked for.
"""

import array
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from benchmarks.compiled import compiled
from meter_gateway.receiver import BrokerAddress
from schemas.errors import DomainError

CONNECTIONS = 4
WINDOW = 1_000
# A generator gives up by itself two minutes after the last acknowledgement.
TIMEOUT_S = 900.0
BROKER_VARIABLE = "PREPAID_BROKER__URL"


class LoadError(DomainError):
    """The load could not be made, so there is nothing to report."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a generator says at its end; `stamps_ns`: the wall clock at each message's sending."""

    messages: int
    elapsed_s: float
    cpu_s: float
    stamps_ns: "array.array[int]"


@dataclass(frozen=True, slots=True)
class Publishing:
    """A generator at work."""

    process: subprocess.Popen[str]
    stamps: Path
    count: int

    def finish(self) -> Sent:
        """Wait for its end. Errors: LoadError where a message was not acknowledged."""
        said, complaint = self.process.communicate(timeout=TIMEOUT_S)
        if self.process.returncode != 0:
            raise LoadError(
                "load_failed",
                f"The load generator failed: {(complaint or said).strip()[-300:]}. "
                "Look at the broker's log.",
            )
        form = json.loads(said)
        stamps = array.array("q")
        with self.stamps.open("rb") as file:
            stamps.fromfile(file, self.count)
        return Sent(self.count, form["elapsed_s"], form["cpu_s"], stamps)


class Load:
    """Generators of one broker; `folder` is theirs."""

    def __init__(self, broker_url: str, folder: Path) -> None:
        self._url = broker_url
        self._address = BrokerAddress.parse(broker_url)
        self._folder = folder
        self._serial = 0

    @cached_property
    def kind(self) -> str:
        """`C`, or `Python` where no compiler is here or the broker asks for a name or TLS."""
        return "C" if self._program is not None else "Python"

    @cached_property
    def _program(self) -> Path | None:
        plain = self._address.tls is None and self._address.username is None
        return compiled("load_generator", self._folder) if plain else None

    def prepare(self, messages: Iterable[tuple[str, bytes]]) -> Path:
        """A file of (topic, payload) for `publish`."""
        self._serial += 1
        path = self._folder / f"messages-{self._serial}"
        with path.open("wb") as file:
            for topic, payload in messages:
                write_message(file, topic.encode(), payload)
        return path

    def publish(
        self, messages: Path, count: int, *, rate: float = 0, connections: int = CONNECTIONS
    ) -> Publishing:
        """Begin to send the first `count` messages of a file, at a rate (0: flat out)."""
        self._serial += 1
        stamps = self._folder / f"stamps-{self._serial}"
        numbers = [0, count, rate, connections, WINDOW]
        program = (
            [sys.executable, "-m", "benchmarks.publisher"]
            if self._program is None
            else [str(self._program)]
        )
        where = [self._host(), str(self._address.port), str(messages)]
        process = subprocess.Popen(
            [*program, *where, *map(str, numbers), str(stamps)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Not an argument: it may hold a password.
            env=os.environ | {BROKER_VARIABLE: self._url},
        )
        return Publishing(process, stamps, count)

    def _host(self) -> str:
        return "127.0.0.1" if self._address.host == "localhost" else self._address.host


def write_message(file: IO[bytes], topic: bytes, payload: bytes) -> None:
    """One record, as load_generator.c says."""
    file.write(len(topic).to_bytes(2, "big") + topic)
    file.write(len(payload).to_bytes(4, "big") + payload)
