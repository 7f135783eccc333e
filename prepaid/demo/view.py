"""The live view: what an operator would want to see first, from the database and the gateway."""

import re
import time
import urllib.request
from collections import deque
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.quantities import format_instant, format_micro
from store.overview import Overview, RecentTopUp

WINDOW_S = 30.0
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class GatewayNumbers:
    """Readings a second and latency over the last half minute, from the gateway's metrics."""

    port: int
    _samples: deque[tuple[float, dict[str, float]]] = field(default_factory=deque)

    def look(self) -> None:
        """Take a sample; a gateway that is away gives none."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/metrics", timeout=1
            ) as answer:
                text = answer.read().decode()
        except OSError:
            return
        values = {
            f"{name}{{{labels or ''}}}": float(value)
            for name, labels, value in _SAMPLE.findall(text)
        }
        newest = self._samples[-1][1] if self._samples else {}
        messages = "prepaid_messages_total{}"
        if values.get(messages, 0) < newest.get(messages, 0):
            self._samples.clear()  # another gateway process counts from zero
        self._samples.append((time.monotonic(), values))
        while self._samples[0][0] < self._samples[-1][0] - WINDOW_S:
            self._samples.popleft()

    def rate(self, verdict: str) -> float:
        """Readings a second with this verdict."""
        if len(self._samples) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        name = f'prepaid_readings_total{{verdict="{verdict}"}}'
        return (last.get(name, 0) - first.get(name, 0)) / max(last_s - first_s, 0.001)

    def latency_s(self, share: float) -> float | None:
        """The bucket's upper edge below which this share of debits were committed."""
        if not self._samples:
            return None
        first, last = self._samples[0][1], self._samples[-1][1]
        if len(self._samples) == 1:
            first = {}
        buckets = []
        for name, count in last.items():
            if name.startswith("prepaid_debit_latency_seconds_bucket{le="):
                edge = float(name.split('"')[1])
                buckets.append((edge, count - first.get(name, 0)))
        buckets.sort()
        if not buckets or not buckets[-1][1]:
            return None
        wanted = share * buckets[-1][1]
        return next(edge for edge, count in buckets if count >= wanted)


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else f"≤ {seconds * 1000:g} ms"


def _span(ms: int | None) -> str:
    return "-" if ms is None else f"{ms / 1000:.0f} s"


def headline(numbers: GatewayNumbers, seen: Overview, now_ms: int) -> str:
    """One line of the essentials, for terminals and logs alike."""
    counts, back = seen.counts, seen.reconnections
    return (
        f"{format_instant(now_ms)[:19]}Z  {numbers.rate('accepted'):.1f} readings/s, debit p50 "
        f"{_latency(numbers.latency_s(0.5))} p99 {_latency(numbers.latency_s(0.99))} | on "
        f"{counts.connected} protected {counts.protected} off {counts.disconnected} "
        f"(relays open {counts.relays_open}), back on p50 {_span(back.p50_ms)} p99 "
        f"{_span(back.p99_ms)} | paid {counts.top_ups}, tokens accepted "
        f"{counts.tokens_accepted}/{counts.tokens} | quarantine {counts.quarantined_messages}"
    )


def state_of(top_up: RecentTopUp) -> str:
    """How far a payment has come."""
    if top_up.rejected_ms is not None:
        return "rejected by the meter"
    if top_up.on_supply_ms is not None and (
        top_up.accepted_ms is not None or top_up.token_issued_ms is None
    ):
        return f"on supply after {(top_up.on_supply_ms - top_up.credited_ms) / 1000:.0f} s"
    if top_up.accepted_ms is not None:
        return "token accepted"
    if top_up.delivered_ms is not None:
        return "token delivered"
    return "token issued" if top_up.token_issued_ms is not None else "credited"


def render(
    numbers: GatewayNumbers, seen: Overview, now_ms: int, notes: list[str], addresses: list[str]
) -> RenderableType:
    """The whole screen."""
    accounts = Table(title="Least credit", expand=True, title_justify="left")
    for column in ("account", "meter", "balance", "supply", "relay wanted", "relay reported"):
        accounts.add_column(column, justify="right" if column == "balance" else "left")
    for low in seen.lowest:
        accounts.add_row(
            low.account,
            low.meter,
            format_micro(low.balance_micro)[:-4],
            low.supply,
            low.desired_relay,
            low.reported_relay or "-",
        )
    payments = Table(title="Newest payments", expand=True, title_justify="left")
    for column in ("account", "meter", "amount", "energy", "state (simulated time)"):
        payments.add_column(column, justify="right" if column in {"amount", "energy"} else "left")
    for top_up in seen.top_ups:
        payments.add_row(
            top_up.account,
            top_up.meter,
            format_micro(top_up.amount_micro)[:-4],
            f"{top_up.energy_wh / 1000:.1f} kWh",
            state_of(top_up),
        )
    refused = ", ".join(f"{reason} {count}" for reason, count in seen.quarantine) or "nothing"
    return Group(
        *(Text(line, style="dim") for line in addresses),
        Text(headline(numbers, seen, now_ms), style="bold"),
        Text(f"Quarantine: {refused}"),
        accounts,
        payments,
        *(Text(note, style="yellow") for note in notes[-3:]),
        Text("Ctrl-C ends everything; data stays.", style="dim"),
    )
