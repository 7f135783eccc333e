"""From a message's sending to its debit, as others see it in the database.

What overtakes a backlog has no receipt until what it overtook is there (receipts reach to a meter's
first gap), so commits are looked for themselves: ten times a second, and by so much a figure may be
too large.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import psycopg
from psycopg import Connection

from benchmarks.sql import statement

LOOK_S = 0.1
# Those that are not seen so long after the last question are missing.
LAST_S = 10.0
# A meter's number, and the instant of its reading in ms.
Key = tuple[str, int]


class Debits:
    """Looks for readings on a thread and a connection of its own; `with` keeps it.

    A reading is stored by the commit that debits it: whoever sees one may see the other.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        # In the order in which they were sent; and the wall clock when each was first seen.
        self._waiting: list[Key] = []
        self._seen_ns: dict[Key, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def look_for(self, keys: Sequence[Key]) -> None:
        """Before they are sent."""
        with self._lock:
            self._waiting += keys

    def latencies_ms(self, sent_ns: Mapping[Key, int]) -> list[float]:
        """Of each that was looked for, in ms; waits for the last ones, leaves out the missing."""
        end = time.monotonic() + LAST_S
        while not self._seen_ns.keys() >= sent_ns.keys() and time.monotonic() < end:
            time.sleep(LOOK_S)
        return [
            (self._seen_ns[key] - sent) / 1e6
            for key, sent in sent_ns.items()
            if key in self._seen_ns
        ]

    def _run(self) -> None:
        # With the database gone all that is looked for stays missing, which is told.
        with suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as conn:
            while not self._ended.wait(LOOK_S):
                self._look(conn)

    def _look(self, conn: Connection[Any]) -> None:
        with self._lock:
            asked = list(self._waiting)
        numbers, instants = [key[0] for key in asked], [key[1] for key in asked]
        of = {"numbers": numbers, "ts_ms": instants}
        rows = conn.execute(statement("committed_readings"), of).fetchall()
        now_ns = time.time_ns()
        seen = {asked[place - 1] for (place,) in rows}
        self._seen_ns |= dict.fromkeys(seen, now_ns)
        with self._lock:
            self._waiting = [key for key in self._waiting if key not in seen]
