"""A bounded share of what `python -m fuzz.run` does at length: no input breaks a decoder."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.decoding import LIMIT_BYTES, decode_up
from schemas.topics import Topic

FOLDER = Path(__file__).parents[2] / "fuzz"
# Of a few milliseconds each; the others take some ten microseconds.
SLOW = {"profile-files", "scenarios"}


def loaded(name: str) -> ModuleType:
    """A module of `fuzz`, which is not installed."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TARGETS = loaded("targets").targets()
MUTATED = loaded("mutation").mutated


@pytest.mark.parametrize("name", TARGETS)
def test_no_change_of_a_good_input_breaks_a_decoder(name: str) -> None:
    source = random.Random(name)
    for _ in range(40 if name in SLOW else 2000):
        data = MUTATED(source, TARGETS[name].seeds)
        try:
            TARGETS[name].check(data)
        except Exception as error:
            raise AssertionError(f"{name} fails on {data!r}") from error


@pytest.mark.parametrize("name", sorted(set(TARGETS) - SLOW))
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_break_a_decoder(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@pytest.mark.parametrize(
    "shape", [b"\x81" * 4000, b"\x9f" * 4000, b"\xa1\x01" * 2000, b"\xc1" * 4000, b"[" * 4000]
)
@pytest.mark.parametrize("content_type", [None, "application/cbor"])
def test_depth_is_bounded(shape: bytes, content_type: str | None) -> None:
    topic = Topic("m", "37000000017", "up", "reading")
    [refused] = decode_up(topic, shape, content_type, 0).refused
    assert refused.reason == "undecodable"


@pytest.mark.parametrize("head", [b"\x9b", b"\xbb", b"\x5b", b"\x7b"])
def test_an_announced_length_takes_no_memory(head: bytes) -> None:
    """CBOR arrays, maps, bytes and text that announce 2^40 items and hold none."""
    import tracemalloc  # noqa: PLC0415 - its hooks slow everything once they are loaded

    topic = Topic("g", "GW-1", "up", "batch")
    tracemalloc.start()
    try:
        payload = head + (1 << 40).to_bytes(8, "big")
        [refused] = decode_up(topic, payload, "application/cbor", 0).refused
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.reason == "undecodable"
    assert peak < 16 * LIMIT_BYTES["g"]
