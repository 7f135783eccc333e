"""One picture of several reports: medians as bars, ranges as whiskers. Needs the extra `bench`."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from schemas.errors import DomainError

INCHES_A_BAR = 0.32
MARGIN_INCHES = 1.2


def write_plot(forms: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rates of every bench, a panel each. Errors: DomainError `plot_missing`."""
    try:
        drawing = import_module("matplotlib.figure")  # optional, and slow to import
    except ImportError:
        raise DomainError(
            "plot_missing",
            "The picture needs matplotlib, the extra `bench`: install it into this environment.",
        ) from None
    panels = [(form["bench"], rates(form)) for form in forms]
    panels = [(name, rows) for name, rows in panels if rows]
    if not panels:
        return
    heights = [len(rows) + 1 for _, rows in panels]
    size = (9.0, sum(heights) * INCHES_A_BAR + MARGIN_INCHES * len(panels))
    figure = drawing.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for (name, rows), (axis,) in zip(panels, axes, strict=True):
        medians = [row["median"] for row in rows]
        low = [row["median"] - row["min"] for row in rows]
        high = [row["max"] - row["median"] for row in rows]
        axis.barh([row["subject"] for row in rows], medians, xerr=[low, high], capsize=3)
        axis.invert_yaxis()
        axis.set_title(name, loc="left")
        axis.set_xlabel(", ".join(dict.fromkeys(row["unit"] for row in rows)))
    figure.savefig(path)


def rates(form: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rates of one report, where it has any."""
    return [each for each in form["figures"] if each["figure"] == "rate"]
