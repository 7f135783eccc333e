"""The harness on the whole system: faults that must do no harm, and harm that must be found."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from prepaid.faults.kinds import KINDS, chosen
from prepaid.faults.playing import Course, play
from prepaid.faults.report import line
from prepaid.faults.rounds import CUT_MS, Round, plan
from prepaid.faults.system import System, Wanted

ROOT = Path(__file__).parents[2]
METERS = 12
# One of each group; the command plays them all.
ROUNDS = (
    "gateway-kill-all",
    "api-kill",
    "broker-amnesia",
    "database-kill",
    "network-half-open",
    "clock-forward",
)
pytestmark = pytest.mark.long


def told(rounds: list[Round]) -> str:
    return "\n".join(line(each) for each in rounds)


def removing(at: int, removed: list[str]) -> Callable[[System], Awaitable[None]]:
    """Takes a stored reading away before the laws of one round are asked."""
    counted = itertools.count(1)

    async def meddle(system: System) -> None:
        if next(counted) != at:
            return
        statement = (
            "WITH one AS (SELECT meter_id, register, ts FROM reading WHERE ts < at_ms(%s)"
            " ORDER BY ts DESC LIMIT 1)"
            " DELETE FROM reading r USING one, meter m WHERE (r.meter_id, r.register, r.ts)"
            " = (one.meter_id, one.register, one.ts) AND m.id = r.meter_id RETURNING m.number"
        )

        def remove(conn: object) -> None:
            # Old enough that it must be held, which at the beginning none is.
            before_ms = system.true_clock.now_ms() - CUT_MS
            with conn.transaction():  # type: ignore[attr-defined]
                conn.execute("SET LOCAL session_replication_role = replica")  # type: ignore[attr-defined]
                rows = conn.execute(statement, (before_ms,)).fetchall()  # type: ignore[attr-defined]
            removed.extend(number for (number,) in rows)

        while not removed:
            await system.look(remove)
            await asyncio.sleep(0.2)

    return meddle


@pytest.mark.timeout(600)
async def test_faults_do_no_harm_and_a_reading_removed_behind_the_back_is_found() -> None:
    kinds = [KINDS[name] for name in ROUNDS]
    removed: list[str] = []
    harmless = Course([*enumerate(kinds, start=1)], audit_every=5)
    played = await play(Wanted(METERS, 3), harmless)
    assert [each.breaches for each in played] == [[] for _ in ROUNDS], told(played)
    assert all(each.first_s is not None and each.drained_s is not None for each in played)
    course = Course([(1, KINDS["api-restart"])], deadline_s=5, meddle=removing(1, removed))
    (found,) = await play(Wanted(METERS, 3), course)
    assert len(removed) == 1
    losses = [each for each in found.breaches if (each.law, each.harm) == ("readings_held", "loss")]
    assert [removed[0] in each.told for each in losses] == [True], told([found])


@pytest.mark.timeout(300)
async def test_a_worker_that_acknowledges_before_the_commit_is_found() -> None:
    hasty = Wanted(METERS, 3, gateway_program=(str(Path(__file__).parent / "hasty_gateway.py"),))
    # Three kills: one may fall between two batches.
    course = Course([(at, KINDS["gateway-kill-all"]) for at in (1, 2, 3)], deadline_s=12)
    played = await play(hasty, course)
    broken = [each for each in played if not each.passed]
    assert ("readings_held", "loss") in {
        (breach.law, breach.harm) for each in broken for breach in each.breaches
    }
    words = {"gateway-1", "gateway-2", "api", "PostgreSQL", "mosquitto"}
    assert all(each.last_words.keys() == words for each in broken)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prepaid", "faults", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(300)
def test_the_command_writes_its_page_and_its_form_and_plays_full_disks(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    ended = command(
        "--rounds", "2", "--seed", "5", "--only", "broker-full", "--only", "database-full",
        "--meters", "8", "--json", "--out", str(page),
    )  # fmt: skip
    form = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr
    kinds = {each["kind"] for each in form["rounds"]}
    # Where this system lets nobody mount, they are left out with the reason, and said to be.
    assert kinds | form["skipped"].keys() == {"broker-full", "database-full"}
    assert form["failed"] == 0
    text = page.read_text()
    assert text.startswith("# Faults by the hundred")
    assert "| broker-full |" in text


def test_an_unknown_kind_is_refused_with_what_to_do() -> None:
    ended = command("--only", "earthquake")
    assert ended.returncode == 2
    assert ended.stderr == "prepaid: there is no fault earthquake: see prepaid faults --list\n"


def test_the_listing_names_every_kind() -> None:
    listed = command("--list").stdout.splitlines()
    assert [each.split()[0] for each in listed] == list(KINDS)


def test_a_group_is_every_kind_that_begins_so() -> None:
    assert {each.name for each in chosen(["network"])} == {
        "network-cut", "network-reset", "network-delay", "network-half-open",
    }  # fmt: skip
    assert [each.name for each in chosen(["gateway-kill"])] == ["gateway-kill", "gateway-kill-all"]
    assert chosen([]) == list(KINDS.values())


def test_a_plan_is_even_and_a_round_of_it_is_the_same_alone() -> None:
    kinds = list(KINDS.values())
    planned = plan(kinds, 3 * len(kinds), 7)
    assert [number for number, _ in planned] == list(range(1, 3 * len(kinds) + 1))
    for kind in kinds:
        assert sum(each is kind for _, each in planned) == 3
    for number in (1, len(kinds), 2 * len(kinds) + 3):
        assert plan(kinds, number, 7)[-1] == planned[number - 1]
    assert plan(kinds, len(kinds), 8) != planned[: len(kinds)]
