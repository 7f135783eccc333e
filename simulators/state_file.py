"""Where simulated meters keep their memory: one SQLite file in the state folder."""

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import DomainError
from simulators import meter_state
from simulators.meter_state import MeterState

FILE_NAME = "meters.sqlite"


class StateFile:
    """Open as a context. A meter's memory is written before anything of it is sent, so a meter
    that starts again never says a lower register or counter than it said before.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        # The token memory holds decoder keys: readable by the owner alone, from the first byte.
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        # A crash of the process loses nothing; only a power failure of the machine may.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS meter (number TEXT PRIMARY KEY, memory BLOB NOT NULL)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def load(self, number: str) -> MeterState:
        """The meter's memory, or a new one. Raises DomainError `state_damaged`."""
        row = self._database.execute(
            "SELECT memory FROM meter WHERE number = ?", (number,)
        ).fetchone()
        if row is None:
            return MeterState()
        try:
            return meter_state.load(row[0])
        except (ValueError, KeyError, TypeError):
            raise DomainError(
                "state_damaged", f"Remove the simulator's state folder: meter {number} is damaged."
            ) from None

    def save(self, number: str, state: MeterState) -> None:
        self._database.execute(
            "INSERT INTO meter (number, memory) VALUES (?, ?) "
            "ON CONFLICT (number) DO UPDATE SET memory = excluded.memory",
            (number, meter_state.dump(state)),
        )
