"""The one form of every measurement: figures as medians and ranges, ratios, checks, what was left.

A rate whose run failed a check is no result, so checks travel with the figures.
"""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Cost

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Servers:
    """Where to measure. `psql` and `mosquitto_sub` are None where this host has none; `autosave_s`:
    between two snapshots of a broker of our own.
    """

    database_url: str
    broker_url: str
    psql: Path | None = None
    mosquitto_sub: Path | None = None
    autosave_s: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller chooses; `progress` takes one line at a time."""

    meters: int = 20_000
    repetitions: int = 5
    workers: int = 1
    # Of each paced stretch: long enough for a 99th percentile, short enough for five repetitions.
    paced_s: float = 8.0
    # Of the oldest account whose history is measured.
    months: int = 24
    # That every meter says while the gateways of `backlog` are away.
    slots: int = 4
    progress: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of one subject over the repetitions."""

    subject: str
    figure: str
    unit: str
    median: float
    min: float
    max: float
    repetitions: int

    @classmethod
    def of(cls, subject: str, figure: str, unit: str, values: Sequence[float]) -> "Figure":
        return cls(
            subject, figure, unit, statistics.median(values), min(values), max(values), len(values)
        )

    def form(self) -> dict[str, Any]:
        rounded = {name: significant(getattr(self, name)) for name in ("median", "min", "max")}
        return {
            "subject": self.subject,
            "figure": self.figure,
            "unit": self.unit,
            **rounded,
            "repetitions": self.repetitions,
        }


@dataclass(slots=True)
class Report:
    """What one bench found."""

    bench: str
    parameters: Mapping[str, Any]
    figures: list[Figure] = field(default_factory=list)
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, subject: str, figure: str, unit: str, values: Sequence[float]) -> None:
        self.figures.append(Figure.of(subject, figure, unit, values))

    def add_costs(self, subject: str, costs: Sequence[Cost], thing: str = "reading") -> None:
        """Rate, and CPU by part where a part could be seen."""
        self.add(subject, "rate", f"{thing}s/s", [cost.rate for cost in costs])
        for part in costs[0].cpu_s:
            spent = [cost.cpu_us(part) for cost in costs]
            if any(spent):
                self.add(subject, f"cpu {part}", f"µs/{thing}", spent)

    def add_ratio(self, subject: str, over: str, values: Sequence[float]) -> None:
        """The subject's rate over another's, repetition by repetition."""
        self.add(subject, f"÷ {over}", "times", values)

    def check(self, what: str, wrong: Sequence[str]) -> None:
        """A check of this run; it passed if nothing is wrong. The first few wrong ones are told."""
        self.checks.append((what, not wrong, "; ".join(wrong[:5])))

    def skip(self, subject: str, reason: str) -> None:
        self.skipped[subject] = reason

    def passed(self) -> bool:
        return all(passed for _, passed, _ in self.checks)

    def form(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "format": FORMAT,
            "bench": self.bench,
            "parameters": dict(self.parameters),
            "machine": machine(),
            "figures": [each.form() for each in self.figures],
            "checks": [
                {"what": what, "passed": passed, "found": found}
                for what, passed, found in self.checks
            ],
            "skipped": self.skipped,
            "passed": self.passed(),
        }


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else "unknown"


def significant(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def spoken(value: float) -> str:
    """A figure for people."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_text(form: Mapping[str, Any]) -> str:
    """A report for people, from its JSON form."""
    lines = [f"{form['bench']}  {_named(form['parameters'])}"]
    lines += [
        f"  {each['subject']:26} {each['figure']:26} {spoken(each['median']):>9}"
        f" {each['unit']:16} [{spoken(each['min'])} – {spoken(each['max'])}]"
        for each in form["figures"]
    ]
    for subject, reason in form["skipped"].items():
        lines.append(f"  skipped: {subject}: {reason}")
    for check in form["checks"]:
        word = "right" if check["passed"] else "WRONG"
        lines.append(f"  {word}: {check['what']}" + _after(check["found"]))
    return "\n".join(lines)


def as_markdown(forms: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/performance.md, generated so that no figure is typed."""
    lines = ["| bench | subject | figure | median | range | unit |", "|---|---|---|--:|---|---|"]
    for form in forms:
        for each in form["figures"]:
            between = f"{spoken(each['min'])} – {spoken(each['max'])}"
            lines.append(
                f"| {form['bench']} | {each['subject']} | {each['figure']} "
                f"| {spoken(each['median'])} | {between} | {each['unit']} |"
            )
    lines.append("")
    for form in forms:
        wrong = [check["what"] for check in form["checks"] if not check["passed"]]
        judged = f"WRONG: {', '.join(wrong)}" if wrong else f"{len(form['checks'])} checks right"
        left = "".join(f"; without {name}: {why}" for name, why in form["skipped"].items())
        lines.append(f"- {form['bench']} ({_named(form['parameters'])}): {judged}{left}.")
    return "\n".join(lines) + "\n"


def _named(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items())


def _after(found: str) -> str:
    return f": {found}" if found else ""
