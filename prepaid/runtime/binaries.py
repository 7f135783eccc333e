"""Which programs serve us: paths and versions, whatever their source."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class BinarySource(StrEnum):
    """Where the programs come from."""

    LOCAL = "local"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """PostgreSQL with the TimescaleDB extension; `bin` holds postgres, initdb and createdb."""

    source: BinarySource
    bin: Path
    major: int
    version: str
    timescaledb_version: str
    # The Apache edition has no compression, continuous aggregates and policies.
    timescaledb_edition: str


@dataclass(frozen=True, slots=True)
class MosquittoBinaries:
    source: BinarySource
    server: Path
    version: str


@dataclass(frozen=True, slots=True)
class Binaries:
    postgres: PostgresBinaries
    mosquitto: MosquittoBinaries
