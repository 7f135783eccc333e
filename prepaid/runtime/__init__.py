"""PostgreSQL with TimescaleDB and mosquitto of our own, on a host where nothing is installed."""

from prepaid.runtime.binaries import Binaries, BinarySource, MosquittoBinaries, PostgresBinaries
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account, Folders
from prepaid.runtime.instance import Instance
from prepaid.runtime.mosquitto import Access, DeviceTls, Mosquitto
from prepaid.runtime.postgres import Postgres
from prepaid.runtime.resolver import resolve

__all__ = [
    "Access",
    "Account",
    "Binaries",
    "BinarySource",
    "DeviceTls",
    "Folders",
    "Instance",
    "Mosquitto",
    "MosquittoBinaries",
    "Postgres",
    "PostgresBinaries",
    "RuntimeUnavailableError",
    "resolve",
]
