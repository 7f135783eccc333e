import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from prepaid.runtime import server_process
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.server_process import (
    FIRST_PORT,
    LOOPBACK,
    PORTS,
    FolderLock,
    choose_port,
    keep_port,
    port_is_free,
)


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((LOOPBACK, choose_port("occupied")))
        server.listen()
        yield server.getsockname()[1]


def test_port_is_free_and_below_the_range_of_outgoing_connections() -> None:
    port = choose_port("any")
    assert FIRST_PORT <= port < FIRST_PORT + PORTS < 32_768
    assert port_is_free(port)


def test_listened_port_is_not_free(occupied: int) -> None:
    assert not port_is_free(occupied)
    assert choose_port("occupied") != occupied


def test_taken_port_is_passed_over() -> None:
    port = choose_port("seed")
    assert choose_port("seed", taken=frozenset({port})) != port


def test_no_free_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "PORTS", 3)
    with pytest.raises(RuntimeUnavailableError, match="No free TCP port"):
        choose_port("seed", taken=frozenset(range(FIRST_PORT, FIRST_PORT + 3)))


def test_kept_port_stays(tmp_path: Path) -> None:
    port = choose_port("kept")
    (tmp_path / "database.port").write_text(str(port))
    assert keep_port(tmp_path, "database") == port


@pytest.mark.parametrize("text", ["", "port", "0", "70000"])
def test_damaged_port_file_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "database.port"
    path.write_text(text)
    assert keep_port(tmp_path, "database") == int(path.read_text())


def test_kept_port_that_is_in_use_is_chosen_anew(tmp_path: Path, occupied: int) -> None:
    path = tmp_path / "database.port"
    path.write_text(str(occupied))
    port = keep_port(tmp_path, "database")
    assert port != occupied
    assert int(path.read_text()) == port


def test_second_holder_of_a_folder_is_refused(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    first.acquire()
    with pytest.raises(RuntimeUnavailableError, match="set PREPAID_HOME") as caught:
        second.acquire()
    assert caught.value.code == "already_running"
    first.release()
    second.acquire()
    second.release()
