"""The dashboard asks for what the processes really serve."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from api.edge import Metrics
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.token_alarm import TokenAlarm

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "prepaid.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def served() -> set[str]:
    """Names of all series of a gateway and of an API."""
    gateway = GatewayMetrics(1).registry
    TokenAlarm(gateway)
    registries: list[CollectorRegistry] = [gateway, Metrics().registry]
    return {
        metric.name + suffix
        for registry in registries
        for metric in registry.collect()
        for suffix in SUFFIXES[metric.type]
    }


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_is_served(panel):
    asked = {
        name for target in panel["targets"] for name in re.findall(r"prepaid_\w+", target["expr"])
    }
    assert asked
    assert asked <= served()
    assert panel["description"]


def test_panels_do_not_lie_on_each_other():
    places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels()]
    assert len(set(places)) == len(places)
