"""requirements.lock pins what pyproject.toml asks for, with hashes and without addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Only whoever plots wants what plots are drawn with: everybody else is spared the download.
UNPINNED = {"bench"}
EXTRAS = PROJECT["project"]["optional-dependencies"]
ASKED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["build-system"]["requires"],
    *(line for name in sorted(EXTRAS.keys() - UNPINNED) for line in EXTRAS[name]),
    *(line for group in PROJECT["dependency-groups"].values() for line in group),
]


@pytest.mark.parametrize("asked", ASKED)
def test_requirement_is_pinned(asked: str) -> None:
    requirement = Requirement(asked)
    version = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), "run scripts/lock"


def test_every_pin_has_a_hash() -> None:
    for block in re.split(r"\n(?=\S)", LOCK.strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.split("\n")[0]


def test_lock_holds_no_address() -> None:
    assert not re.search(r"://|^-|index-url|find-links|@ ", LOCK, re.MULTILINE)
