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

    @property
    def clients(self) -> Path:
        """The folder of mosquitto_pub and mosquitto_sub, where they are installed at all."""
        return self.server.parent.parent / "bin"


@dataclass(frozen=True, slots=True)
class Binaries:
    postgres: PostgresBinaries
    mosquitto: MosquittoBinaries
