from pathlib import Path

import pytest

from prepaid.runtime import mosquitto_files, postgres
from prepaid.runtime.mosquitto_files import Listener


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (x.partition("=") for x in lines)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen_addresses", "'127.0.0.1'"),
        ("port", "20123"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("jit", "off"),
        ("shared_preload_libraries", "'timescaledb'"),
        ("timescaledb.telemetry_level", "off"),
        ("max_connections", "100"),
        ("timezone", "'UTC'"),
    ],
)
def test_database_is_durable_private_and_silent(name: str, value: str) -> None:
    assert settings(postgres.render_configuration(20123, 8192))[name] == value


@pytest.mark.parametrize(
    ("memory_mib", "buffers"), [(512, "'128MB'"), (8192, "'1024MB'"), (262_144, "'2048MB'")]
)
def test_buffers_leave_memory_to_the_other_processes(memory_mib: int, buffers: str) -> None:
    assert settings(postgres.render_configuration(1, memory_mib))["shared_buffers"] == buffers


def test_database_admits_two_roles_by_password_from_loopback() -> None:
    assert postgres.render_access() == (
        "host all prepaid,prepaid_login 127.0.0.1/32 scram-sha-256\n"
        "host replication prepaid 127.0.0.1/32 scram-sha-256\n"
    )


def test_commits_wait_for_standbys_where_there_are_any():
    assert "synchronous_standby_names" not in settings(postgres.render_configuration(1, 8192))
    found = settings(postgres.render_configuration(1, 8192, ("a", "b")))
    assert found["synchronous_standby_names"] == "'ANY 1 (a, b)'"


@pytest.mark.parametrize(
    "line",
    [
        "persistence true",
        "max_inflight_messages 0",
        "max_queued_messages 1000000000",
        "max_packet_size 131072",
        "autosave_interval 2",
        "listener 20001 127.0.0.1",
        "listener 20002 127.0.0.1",
        "pid_file /data/mosquitto.pid",
    ],
)
def test_broker_keeps_what_it_acknowledged(line: str) -> None:
    text = mosquitto_files.render_configuration(Path("/data"), (Listener(20001), Listener(20002)))
    assert line in text.splitlines()


def test_snapshots_may_be_further_apart_where_queues_are_long() -> None:
    text = mosquitto_files.render_configuration(
        Path("/data"), (Listener(20001),), autosave_interval_s=300
    )
    found = [line for line in text.splitlines() if line.startswith("autosave_interval")]
    assert found == ["autosave_interval 300"]
