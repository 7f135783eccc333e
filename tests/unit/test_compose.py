"""compose.yaml says the same as the private runtime, and opens nothing to other hosts."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from prepaid.runtime.instance import BROKER_VARIABLE, DATABASE_VARIABLE, OWNER_VARIABLE
from prepaid.runtime.mosquitto_files import AUTOSAVE_INTERVAL_S, SETTINGS
from prepaid.runtime.postgres import LOGIN

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def test_broker_keeps_to_our_settings(compose: dict[str, Any]) -> None:
    lines = compose["configs"]["mosquitto"]["content"].splitlines()
    assert {*SETTINGS, f"autosave_interval {AUTOSAVE_INTERVAL_S}"} <= set(lines)
    assert "per_listener_settings true" not in lines


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for part in compose["services"].values() for port in part.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_our_part_uses_the_servers_beside_it(compose: dict[str, Any]) -> None:
    services = compose["services"]
    environment = services["prepaid"]["environment"]
    assert "@database:5432/" in environment[DATABASE_VARIABLE]
    assert "@database:5432/" in environment[OWNER_VARIABLE]
    assert environment[DATABASE_VARIABLE].startswith(f"postgresql://{LOGIN}:")
    assert environment[BROKER_VARIABLE] == "mqtt://broker:1883"
    assert set(services["prepaid"]["depends_on"]) == set(services) - {"prepaid"}


def test_state_lies_in_volumes_and_no_password_in_the_file(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("database", "broker"):
        assert services[name]["volumes"][0].startswith(f"{name}:")
    assert services["database"]["environment"]["POSTGRES_PASSWORD"].startswith("${PREPAID_PASSWORD")
