"""A reading of a meter in stock and its installation, at the same time: whichever commits first,
the reading is charged.
"""

import threading
import time
from typing import Any

import psycopg
import pytest

from store import ingest, registry
from store.terms import TermsCache

T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z, when the accounts of these tests are opened
HOUR = 3_600_000
OPENED_WH = 100_000


@pytest.mark.parametrize("first", ["reading", "installation"])
def test_a_reading_beside_its_meters_installation_is_charged(utility: Any, first: str) -> None:
    supply, spare = utility.open(), utility.meter()
    utility.now = T0 + 3 * HOUR
    message = utility.reading(spare, T0 + 2 * HOUR, OPENED_WH + 500)
    installation = utility.installation(spare, T0 + HOUR)

    def read(conn: psycopg.Connection) -> None:
        ingest.record(conn, TermsCache(), [message], utility.now)

    def install(conn: psycopg.Connection) -> None:
        registry.exchange_meter(conn, supply.id, OPENED_WH + 100, installation, utility.now)

    before, after = (read, install) if first == "reading" else (install, read)
    failed: list[BaseException] = []

    def second() -> None:
        try:
            with psycopg.connect(utility.url, autocommit=True) as conn:
                after(conn)
        except psycopg.Error as error:
            failed.append(error)

    waiting = threading.Thread(target=second)
    with psycopg.connect(utility.url, autocommit=True) as conn, conn.transaction():
        before(conn)
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive(), "the second did not wait for the first"
    waiting.join(20)
    assert failed == []
    assert utility.rows("SELECT verdict FROM reading") == ["accepted"]
    assert utility.rows("SELECT sum(energy_wh)::bigint FROM ledger_transaction") == [600]
