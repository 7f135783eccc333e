"""A floor that cannot be measured here says why; an address is handed on without an argument."""

from pathlib import Path

import pytest

from benchmarks.floors import Literal, Node, Shell, postgres_environment
from benchmarks.report import Servers

DATABASE = "postgresql://meter:a%20b@db.example:5433/readings"
PROGRAM = Path("/bin/sh")


def servers(broker="mqtt://127.0.0.1:1883", psql=PROGRAM, mosquitto_sub=PROGRAM):
    return Servers(DATABASE, broker, psql, mosquitto_sub)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (servers(psql=None), "no mosquitto_sub or no psql on this host"),
        (servers(mosquitto_sub=None), "no mosquitto_sub or no psql on this host"),
        (servers("mqtt://me:secret@127.0.0.1"), "the broker asks for a name or TLS"),
        (servers("mqtts://127.0.0.1"), "the broker asks for a name or TLS"),
    ],
)
def test_the_pipeline_says_what_is_missing(given, reason):
    said = Shell(given, DATABASE).skipped()
    assert said is not None
    assert reason in said
    assert "secret" not in said


def test_what_is_there_is_measured():
    assert Shell(servers(), DATABASE).skipped() is None
    assert Literal(servers(), DATABASE).skipped() is None


def test_the_npm_clients_need_node_and_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Node(servers(), DATABASE).skipped() == "no node on this host"
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\nexit 1\n")
    node.chmod(0o755)
    said = Node(servers(), DATABASE).skipped()
    assert said == "node does not find mqtt and pg: install them and set NODE_PATH"
    node.write_text("#!/bin/sh\nexit 0\n")
    assert Node(servers(), DATABASE).skipped() is None


def test_an_address_travels_by_environment():
    assert postgres_environment(DATABASE) == {
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGUSER": "meter",
        "PGPASSWORD": "a b",
        "PGDATABASE": "readings",
    }
