"""CPU and memory of processes, from /proc: ours, the broker's, and the database server's.

Everything is 0 or None where a process is on another machine or may not be looked at.
"""

import os
from pathlib import Path
from typing import Any

from psycopg import Connection

TICKS = os.sysconf("SC_CLK_TCK")
LISTENING = "0A"


def process_cpu_s(pid: int, name: str) -> float:
    """CPU seconds of one process, if it is called so."""
    found = _stat(pid)
    if found is None or name not in found[0]:
        return 0.0
    return (int(found[1][11]) + int(found[1][12])) / TICKS


def tree_cpu_s(pid: int | None) -> float:
    """CPU seconds of a process, of the children that it has waited for, and of those that live."""
    found = None if pid is None else _stat(pid)
    if pid is None or found is None:
        return 0.0
    own = sum(int(field) for field in found[1][11:15]) / TICKS
    return own + sum(tree_cpu_s(child) for child in children(pid))


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(each) for each in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found


def server_cpu_s(conn: Connection[Any]) -> float:
    """CPU seconds of the connection's backend."""
    return process_cpu_s(conn.info.backend_pid, "postgres")


def postmaster_pid(conn: Connection[Any]) -> int | None:
    """The database server above the connection's backend."""
    found = _stat(conn.info.backend_pid)
    return int(found[1][1]) if found is not None and "postgres" in found[0] else None


def listener_pid(port: int, name: str) -> int | None:
    """The process called `name` that listens on a TCP port."""
    sockets: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == LISTENING:
                sockets.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*"):
        found = _stat(int(folder.name))
        if found is not None and name in found[0] and _holds(folder, sockets):
            return int(folder.name)
    return None


def peak_memory_mib(pid: int) -> float:
    """The most memory that a process has held so far, in MiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peaks[0] / 1024 if peaks else 0.0


def _holds(folder: Path, sockets: set[str]) -> bool:
    try:
        return any(str(each.readlink()) in sockets for each in (folder / "fd").iterdir())
    except OSError:
        return False


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """Name, and the fields of proc(5) stat after it, from the state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    command, _, rest = text.rpartition(")")
    return command.partition("(")[2], rest.split()
