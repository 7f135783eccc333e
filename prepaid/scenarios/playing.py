"""A run of scenarios from the command line: on which servers, and what is told."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from prepaid import logs
from prepaid.demo.trust import DemoTrust
from prepaid.runtime import Folders, Instance
from prepaid.runtime.instance import BROKER_VARIABLE, DATABASE_VARIABLE
from prepaid.scenarios.catalogue import SCENARIOS
from prepaid.scenarios.rig import Servers, rigged
from prepaid.scenarios.runner import Result, Scenario, form, line, run_scenario, write_table
from schemas.errors import DomainError


def chosen(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names; `all` names every one. Errors: DomainError no_such_scenario."""
    if "all" in names:
        return list(SCENARIOS.values())
    unknown = sorted(set(names) - SCENARIOS.keys())
    if unknown:
        raise DomainError(
            "no_such_scenario", f"there is no scenario {unknown[0]}: see prepaid simulate --list"
        )
    return [SCENARIOS[name] for name in names]


def play(scenarios: Sequence[Scenario], seed: int, table: Path | None, *, as_json: bool) -> None:
    """Play them, tell of each on standard output; raises typer.Exit, 1 where one failed."""
    logs.configure(as_json=False, level="critical")

    def tell(result: Result) -> None:
        if not as_json:
            lines = [line(result), *(f"        {failure}" for failure in result.failures)]
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()

    # Those that kill servers or ask for certificates come last, on servers of their own.
    results: list[Result] = []
    for kills, trusts in ((False, False), (True, False), (False, True)):
        mine = [each for each in scenarios if (each.kills, each.trusts) == (kills, trusts)]
        if mine:
            with _servers(given=not (kills or trusts), trusts=trusts) as servers:
                results += asyncio.run(_played(servers, mine, seed, tell))
    failed = sum(not result.passed for result in results)
    if as_json:
        sys.stdout.write(json.dumps(form(results), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(f"{len(results) - failed} passed, {failed} failed\n")
    if table is not None:
        write_table(results, table)
    raise typer.Exit(1 if failed else 0)


async def _played(
    servers: Servers, scenarios: Sequence[Scenario], seed: int, tell: Callable[[Result], None]
) -> list[Result]:
    results = []
    with tempfile.TemporaryDirectory(prefix="prepaid-scenarios-") as folder:
        async with rigged(servers, Path(folder), seed) as rig:
            for each in scenarios:
                result = await run_scenario(rig, each)
                tell(result)
                results.append(result)
            if not all(result.passed for result in results):
                sys.stderr.write(rig.gateway_log() + "\n")
    return results


@contextmanager
def _servers(*, given: bool, trusts: bool) -> Iterator[Servers]:
    """The servers of the settings where they are wanted and set, private ones otherwise."""
    own = {DATABASE_VARIABLE, BROKER_VARIABLE}
    environ = {name: text for name, text in os.environ.items() if given or name not in own}
    with tempfile.TemporaryDirectory(prefix="prepaid-servers-") as folder:
        # The servers' account goes through it.
        Path(folder).chmod(0o755)
        folders = Folders(Path(folder) / "data", Folders.choose(os.environ).cache)
        trust = DemoTrust(Path(folder) / "trust") if trusts else None
        access = None if trust is None else trust.access((), tls=True)
        if trust is not None:
            trust.signing_key()
        with Instance(_progress, environ=environ, folders=folders, access=access) as instance:
            yield Servers(instance.database_url, instance.broker_url, instance, trust)


def _progress(text: str) -> None:
    sys.stderr.write(f"prepaid: {text}\n")
