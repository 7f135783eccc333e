"""A private RabbitMQ of several nodes on the loopback interface: MQTT for devices, AMQP for ingest.

For trials and tests of a clustered broker: each node is a process of its own, so that one can be
killed while the others go on. Name service (epmd), cookie, ports and password are this cluster's
alone.
"""

import os
import secrets
import shutil
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.rabbitmq_packages import RabbitBinaries
from prepaid.runtime.server_process import LOOPBACK, FolderLock, ServerProcess, keep_port

USER = "prepaid"
NODES = 3
PORTS = ("amqp", "mqtt", "distribution")
# One scheduler each: a machine that runs a whole cluster has other work too.
ERLANG_OPTIONS = ("+S", "1:1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none", "+W", "w")


def render_configuration(ports: Mapping[str, int], password: str, nodes: list[str]) -> str:
    """rabbitmq.conf of one node.

    A node that sees less than half of the cluster pauses: better none than one that accepts what
    the others will never hear of.
    """
    formation = "".join(
        f"cluster_formation.classic_config.nodes.{place} = {name}\n"
        for place, name in enumerate(nodes, 1)
    )
    return (
        f"listeners.tcp.1 = {LOOPBACK}:{ports['amqp']}\n"
        f"mqtt.listeners.tcp.1 = {LOOPBACK}:{ports['mqtt']}\n"
        f"default_user = {USER}\n"
        f"default_pass = {password}\n"
        "cluster_formation.peer_discovery_backend = classic_config\n"
        f"{formation}"
        "cluster_partition_handling = pause_minority\n"
        "log.console = true\n"
        "log.console.level = warning\n"
    )


class RabbitNode:
    """One node: `start`, `stop` in order, `kill` as a power cut would. Its data stay."""

    def __init__(
        self,
        name: str,
        binaries: RabbitBinaries,
        folder: Path,
        account: Account,
        ports: Mapping[str, int],
        environ: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name = name
        self.ports = ports
        self._binaries = binaries
        self._environ = environ
        self._pid_file = folder / "pid"
        self._process = ServerProcess(name, folder, log, account)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._process.log

    def running(self) -> bool:
        return self._process.running()

    def start(self) -> None:
        """Until it takes connections of both kinds. Errors: `start_failed`."""
        self._process.end_leftover(self._pid_file, signal.SIGTERM)
        self._process.start(
            [
                str(self._binaries.programs / "erlexec"),
                *("-noinput", "-s", "rabbit", "boot", "-boot", "start_sasl"),
                *ERLANG_OPTIONS,
                *("-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"),
                *("-kernel", "prevent_overlapping_partitions", "false"),
                *("-kernel", "inet_dist_use_interface", "{127,0,0,1}"),
            ],
            self._ready,
            self._environ,
        )

    def stop(self) -> None:
        self._process.stop(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()

    def freeze(self) -> None:
        """It neither works nor ends, as behind a network that drops everything, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _ready(self, pid: int) -> bool:
        for kind in ("amqp", "mqtt"):
            try:
                socket.create_connection((LOOPBACK, self.ports[kind]), timeout=1).close()
            except OSError:
                return False
        return True


class RabbitCluster:
    """`with RabbitCluster(binaries, folder, account) as cluster: cluster.amqp_url`"""

    def __init__(
        self, binaries: RabbitBinaries, data_dir: Path, account: Account, nodes: int = NODES
    ) -> None:
        self._binaries = binaries
        self._folder = data_dir
        self._owned = data_dir / "server"
        self._account = account
        self._count = nodes
        self._lock = FolderLock(data_dir)
        self._names = ServerProcess("epmd", self._owned, data_dir / "epmd.log", account)
        self.nodes: list[RabbitNode] = []

    @property
    def amqp_url(self) -> str:
        """`amqp://USER:PASSWORD@HOST:PORT,HOST:PORT,...`: every node; holds a secret."""
        return f"amqp://{USER}:{self._password()}@{self._hosts('amqp')}"

    @property
    def mqtt_url(self) -> str:
        """`mqtt://...`, likewise."""
        return f"mqtt://{USER}:{self._password()}@{self._hosts('mqtt')}"

    def mqtt_url_of(self, place: int) -> str:
        """Of one node, counted from 0."""
        port = self.nodes[place].ports["mqtt"]
        return f"mqtt://{USER}:{self._password()}@{LOOPBACK}:{port}"

    def _hosts(self, kind: str) -> str:
        if not self.nodes:
            raise RuntimeUnavailableError(
                "not_running", "The cluster has no ports: start it first."
            )
        return ",".join(f"{LOOPBACK}:{node.ports[kind]}" for node in self.nodes)

    def start(self) -> None:
        """All nodes, which find each other and form the cluster; some ten seconds.

        Errors: `already_running`, `start_failed`, and those of `Account.make_folder`.
        """
        self._account.make_folder(self._owned)
        self._lock.acquire()
        try:
            self._choose_ports()
            epmd_port = self._ports["epmd"]
            self._names.start(
                [
                    str(self._binaries.programs / "epmd"),
                    *("-port", str(epmd_port), "-address", LOOPBACK),
                ],
                lambda _: _answers(epmd_port),
                {},
            )
            if not self.nodes:
                names = [f"rabbit{place}@localhost" for place in range(1, self._count + 1)]
                self.nodes = [self._make_node(name, names) for name in names]
            # All at once: a node that is alone waits for those that its configuration names.
            with ThreadPoolExecutor(len(self.nodes)) as starting:
                for started in [starting.submit(node.start) for node in self.nodes]:
                    started.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """The nodes in order, the last one first; then the name service."""
        for node in reversed(self.nodes):
            node.stop()
        self._names.stop(signal.SIGTERM)
        self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _choose_ports(self) -> None:
        wanted = ["epmd"] + [f"{kind}{n}" for n in range(1, self._count + 1) for kind in PORTS]
        self._ports: dict[str, int] = {}
        for name in wanted:
            taken = frozenset(self._ports.values())
            self._ports[name] = keep_port(self._folder, name, taken=taken)

    def _make_node(self, name: str, names: list[str]) -> RabbitNode:
        short = name.partition("@")[0]
        place = short.removeprefix("rabbit")
        folder = self._owned / short
        self._account.make_folder(folder)
        ports = {kind: self._ports[f"{kind}{place}"] for kind in PORTS}
        cookie = self._secret("cookie")
        self._hand_over(folder / ".erlang.cookie", cookie)
        self._hand_over(
            folder / "rabbitmq.conf", render_configuration(ports, self._password(), names)
        )
        self._hand_over(folder / "enabled_plugins", "[rabbitmq_mqtt].\n")
        self._hand_over(folder / "rabbitmq-env.conf", "")
        environ = self._environ(name, folder, ports)
        log = self._folder / f"{short}.log"
        return RabbitNode(name, self._binaries, folder, self._account, ports, environ, log)

    def _environ(self, name: str, folder: Path, ports: Mapping[str, int]) -> Mapping[str, str]:
        home = self._binaries.home
        return {
            # df and sh are asked for by Erlang's watch over memory and disk.
            "PATH": f"{self._binaries.programs}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
            "ROOTDIR": str(self._binaries.erlang),
            "BINDIR": str(self._binaries.programs),
            "EMU": "beam",
            "PROGNAME": "erl",
            "ERL_LIBS": str(home / "plugins"),
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_MAX_ETS_TABLES": "50000",
            "SYS_PREFIX": "",
            "RABBITMQ_HOME": str(home),
            "RABBITMQ_PLUGINS_DIR": str(home / "plugins"),
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_LOGS": "-",
        }

    def _password(self) -> str:
        return self._secret("password")

    def _secret(self, name: str) -> str:
        path = self._folder / name
        if not path.exists():
            _write(path, secrets.token_hex(24))
        return path.read_text(encoding="ascii")

    def _hand_over(self, path: Path, text: str) -> None:
        """A file of ours that the servers' account alone may read."""
        staged = self._folder / "staged"
        _write(staged, text)
        if self._account.switched:
            os.chown(staged, self._account.uid, self._account.gid)
        shutil.move(staged, path)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _answers(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
