"""The private RabbitMQ without starting it: what is taken, and what its nodes are told."""

import json
from pathlib import Path

import pytest

from prepaid.runtime import Account, RuntimeUnavailableError
from prepaid.runtime.rabbitmq import RabbitCluster, render_configuration
from prepaid.runtime.rabbitmq_packages import RabbitBinaries, RabbitPackages, select

BINARIES = RabbitBinaries(Path("/r/rabbitmq_server-4.0.5"), Path("/r/erlang"), Path("/r/bin"))


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("rabbitmq-server", True),
        ("erlang-base", True),
        ("erlang-crypto", True),
        ("libtinfo6", True),
        ("libc6", True),
        ("zlib1g", True),
        ("libpython3.13-stdlib", False),
        ("libpam-modules", False),
        ("python3", False),
        ("adduser", False),
        ("dpkg", False),
    ],
)
def test_what_nodes_load_is_taken_and_nothing_else(name, taken):
    assert select([name]) == ((name,) if taken else ())


def test_a_node_listens_on_loopback_alone_and_knows_the_others():
    ports = {"amqp": 20001, "mqtt": 20002, "distribution": 20003}
    text = render_configuration(ports, "word", ["a@localhost", "b@localhost"])
    lines = dict(line.split(" = ", 1) for line in text.splitlines())
    listeners = {name: value for name, value in lines.items() if "listeners" in name}
    assert listeners == {
        "listeners.tcp.1": "127.0.0.1:20001",
        "mqtt.listeners.tcp.1": "127.0.0.1:20002",
    }
    assert lines["cluster_formation.classic_config.nodes.1"] == "a@localhost"
    assert lines["cluster_formation.classic_config.nodes.2"] == "b@localhost"
    assert lines["cluster_partition_handling"] == "pause_minority"


def test_the_version_is_that_of_the_folder():
    assert BINARIES.version == "4.0.5"


def test_a_root_that_was_moved_is_fetched_again(tmp_path):
    packages = RabbitPackages(tmp_path, {})
    assert packages.find() is None
    (packages.root / "usr/lib/rabbitmq/lib/rabbitmq_server-4.0.5").mkdir(parents=True)
    (packages.root / "usr/lib/erlang/erts-15.2.7/bin").mkdir(parents=True)
    manifest = packages.root.parent / "manifest.json"
    manifest.write_text(json.dumps({"root": "/elsewhere"}))
    assert packages.find() is None
    manifest.write_text(json.dumps({"root": str(packages.root)}))
    found = packages.find()
    assert found is not None
    assert found.version == "4.0.5"


def test_a_cluster_that_was_not_started_has_no_address(tmp_path):
    cluster = RabbitCluster(BINARIES, tmp_path, Account.choose())
    with pytest.raises(RuntimeUnavailableError, match="start it first") as refusal:
        _ = cluster.amqp_url
    assert refusal.value.code == "not_running"
