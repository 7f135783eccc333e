"""Runs scenarios one after the other and says of each what was true."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from prepaid.scenarios.rig import Rig
from prepaid.scenarios.trial import Trial

log = structlog.get_logger()

# A scenario that hangs is a finding, not the end of the run.
LIMIT_S = 120.0

INTRODUCTION = """\
Written by `prepaid simulate --scenario all --table docs/scenarios.md`. Each scenario runs against a
real broker, database and gateway process; the truth comes from the simulated meters, never from the
engine. Beside what the table says, each ends with the same questions: is every reading stored once
with its verdict, is the energy billed the energy used, are balance and entries what simple
arithmetic gives, is every refusal kept, does the server know where each relay is, and how each
token and each command ended?"""

Play = Callable[[Trial], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story with an end that must be true; `kills` where servers of its own are needed, `trusts`
    where their broker must ask for certificates.
    """

    play: Play
    kills: bool = False
    trusts: bool = False

    @property
    def name(self) -> str:
        return getattr(self.play, "__name__", "").replace("_", "-")

    @property
    def happens(self) -> str:
        return self._told()[0]

    @property
    def must(self) -> str:
        return self._told()[1]

    def _told(self) -> tuple[str, str]:
        happens, _, must = " ".join((self.play.__doc__ or "").split()).partition(": ")
        return happens, must.removesuffix(".")


@dataclass(frozen=True, slots=True)
class Result:
    """How one scenario ended. `checked` counts the single things that were compared."""

    scenario: Scenario
    seconds: float
    checked: int
    figures: dict[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures


async def run_scenario(rig: Rig, scenario: Scenario) -> Result:
    """Play it, then ask the auditor; whatever goes wrong on the way is a failure of it."""
    trial = Trial(rig, scenario.name)
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            await scenario.play(trial)
            await trial.audit()
    except Exception as error:
        # A scenario that breaks tells about itself; the others are played all the same.
        log.debug("scenario_broke", scenario=scenario.name, exc_info=True)
        trial.failures.append(f"broke: {type(error).__name__}: {error}")
    finally:
        await trial.close()
    return Result(
        scenario,
        time.monotonic() - began_s,
        trial.checked,
        trial.figures,
        tuple(trial.failures),
    )


def line(result: Result) -> str:
    """One line for people."""
    figures = "".join(f", {name} {value}" for name, value in result.figures.items())
    verdict = "passed" if result.passed else "FAILED"
    name, seconds = result.scenario.name, f"{result.seconds:.1f} s"
    return f"{verdict}  {name:<28} {seconds:>7}  {result.checked} checks{figures}"


def form(results: Sequence[Result]) -> dict[str, object]:
    """The results for programs."""
    passed = sum(result.passed for result in results)
    return {
        "scenarios": [
            {
                "name": result.scenario.name,
                "happens": result.scenario.happens,
                "must": result.scenario.must,
                "passed": result.passed,
                "seconds": round(result.seconds, 2),
                "checked": result.checked,
                "figures": result.figures,
                "failures": list(result.failures),
            }
            for result in results
        ],
        "passed": passed,
        "failed": len(results) - passed,
    }


def write_table(results: Sequence[Result], path: Path) -> None:
    """The results as a page of the documentation."""
    path.write_text("\n".join(_table(results)) + "\n", encoding="utf-8")


def _table(results: Sequence[Result]) -> Iterator[str]:
    passed = sum(result.passed for result in results)
    yield "# What meters and networks do wrong, and what must be true at the end"
    yield ""
    yield from INTRODUCTION.splitlines()
    yield ""
    yield "| scenario | what happens | what must be true | result | measured |"
    yield "|---|---|---|---|---|"
    for result in results:
        verdict = "passed" if result.passed else f"failed: {'; '.join(result.failures)}"
        figures = [f"{result.checked} checks in {result.seconds:.1f} s"]
        figures += [f"{name} {value}" for name, value in result.figures.items()]
        cells = (
            result.scenario.name,
            result.scenario.happens,
            result.scenario.must,
            verdict,
            ", ".join(figures),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    yield f"{passed} passed, {len(results) - passed} failed"
