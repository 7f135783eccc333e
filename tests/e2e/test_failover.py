"""A primary with a synchronous standby: what was told as committed outlives the primary."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from prepaid.runtime import Account, Postgres, resolve
from store.migrate import migrate
from store.pool import borrow, make_pool
from store.roles import Login

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(240), pytest.mark.long]


@dataclass
class Pair:
    primary: Postgres
    standby: Postgres

    def url(self, *, owner: bool = False) -> str:
        """Both servers in one address: whichever takes writes is meant."""
        one = self.primary.url if owner else self.primary.application_url
        scheme, _, rest = one.partition("://")
        who, _, where = rest.partition("@")
        database = where.partition("/")[2]
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"{scheme}://{who}@{hosts}/{database}?target_session_attrs=read-write"

    def follow(self, name: str) -> None:
        """Start the standby, and let commits wait for it from now on."""
        self.standby.start()
        self.primary.wait_for(name)
        with psycopg.connect(self.primary.url, autocommit=True) as conn:
            while not conn.execute(
                "SELECT 1 FROM pg_stat_replication WHERE application_name = %s"
                " AND state = 'streaming' AND sync_state IN ('sync', 'quorum')",
                (name,),
            ).fetchone():
                time.sleep(0.05)

    def fail_over(self) -> None:
        """The primary dies, and the standby takes over."""
        self.primary.kill()
        self.standby.promote()

    def rejoin(self, folder: Path, name: str) -> None:
        """The dead one's folder is made anew, as the standby of who took over: it must never serve
        again as what it was.
        """
        self.primary.stop()
        self.primary = self.standby
        self.standby = self.primary.clone(folder, name)
        self.follow(name)


@contextmanager
def running(base: Path) -> Iterator[Pair]:
    for name in ("one", "two"):
        (base / name).mkdir(parents=True)
    primary = Postgres(resolve(lambda _: None).postgres, base / "one", Account.choose())
    with primary:
        migrate(primary.url, login=Login.of(primary.application_url))
        made = Pair(primary, primary.clone(base / "two", "two"))
        try:
            made.follow("two")
            yield made
        finally:
            made.standby.stop()
            made.primary.stop()


@pytest.fixture
def pair(open_folder, tmp_path) -> Iterator[Pair]:
    with running(open_folder / tmp_path.name) as made:
        yield made


@pytest.fixture(scope="module")
def lasting_pair(open_folder) -> Iterator[Pair]:
    """For tests that kill neither."""
    with running(open_folder / "lasting") as made:
        yield made


def run(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prepaid", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREPAID_DATABASE__URL": url},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


async def test_nothing_is_lost_when_the_primary_is_killed_under_load(
    pair, open_folder, tmp_path, broker_url, make_town, make_gateway
) -> None:
    town = make_town(meters=20, readings=120)
    url = pair.url()
    town.found(url)
    name = f"failover-{os.getpid()}"
    variables = {"PREPAID_DATABASE__URL": url, "PREPAID_BROKER__URL": broker_url}
    worker = make_gateway(name, name, variables)
    assert await worker.line() == "ready"
    pool = make_pool(url)
    pool.open()
    with borrow(pool) as conn:
        conn.execute("SELECT 1")
    turns = asyncio.Semaphore(0)
    speaking = asyncio.create_task(town.speak([broker_url], turns, pause_s=0.02))
    for again in ("one", ""):
        for _ in range(town.readings // 3):
            turns.release()
        await town.until_stored(url, len(town.acknowledged) // 2)
        killed_s = time.monotonic()
        await asyncio.to_thread(pair.fail_over)
        promoted_s = time.monotonic()
        with psycopg.connect(url) as conn:
            before = conn.execute("SELECT count(*) FROM reading").fetchone()
            assert before is not None
        await town.until_stored(url, before[0] + 1)
        print(
            f"\npromoted after {promoted_s - killed_s:.1f} s,"
            f" readings are stored again after {time.monotonic() - killed_s:.1f} s"
        )
        if again:
            folder = open_folder / tmp_path.name / again
            await asyncio.to_thread(pair.rejoin, folder, again)
    for _ in range(town.readings):
        turns.release()
    await speaking
    await town.until_stored(url, town.all)
    town.check(url)
    with borrow(pool) as conn:
        assert conn.info.port == pair.standby.port
    pool.close()
    # Every law of the ledger, and the schema: both find the server that takes writes.
    assert run(url, "audit").returncode == 0
    assert run(pair.url(owner=True), "migrate").stdout == "0 applied\n"


def test_a_commit_is_told_as_done_when_the_standby_has_it(lasting_pair) -> None:
    """Nor does a limit on statements, which the API has, end the wait: it would say "done"."""
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(lasting_pair.primary.url, autocommit=True) as conn:
            conn.execute("SET statement_timeout = '200ms'")
            conn.execute("CREATE TABLE told (i int)")
            done.set()

    lasting_pair.standby.stop()
    writing = threading.Thread(target=write)
    writing.start()
    assert not done.wait(2), "told as done, and on one disk only"
    lasting_pair.standby.start()
    writing.join()
    assert done.is_set()
    with psycopg.connect(lasting_pair.standby.url) as conn:
        assert conn.execute("SELECT count(*) FROM told").fetchone() == (0,)


def test_a_commit_that_no_standby_has_is_an_error_when_the_primary_dies(pair) -> None:
    """The client does not know, so it does it again; keys make that harmless."""
    failed = threading.Event()

    def write() -> None:
        try:
            with psycopg.connect(pair.primary.url, autocommit=True) as conn:
                conn.execute("CREATE TABLE untold (i int)")
        except psycopg.OperationalError:
            failed.set()

    pair.standby.stop()
    writing = threading.Thread(target=write)
    writing.start()
    with psycopg.connect(pair.primary.url, autocommit=True) as conn:
        while not conn.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        ).fetchone():
            time.sleep(0.05)
    pair.primary.kill()
    writing.join()
    assert failed.is_set()
    pair.standby.start()
    pair.standby.promote()
    with psycopg.connect(pair.url(owner=True)) as conn:
        assert conn.execute("SELECT to_regclass('untold')").fetchone() == (None,)


def test_the_standby_answers_questions_and_takes_no_writes(lasting_pair) -> None:
    reading = lasting_pair.standby.application_url
    with psycopg.connect(reading, autocommit=True) as conn:
        assert conn.execute("SELECT count(*) FROM account").fetchone() == (0,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("CREATE TABLE mine (i int)")
    assert run(reading, "audit").returncode == 0
