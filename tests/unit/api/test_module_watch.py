"""A watch that is asked often asks its module seldom, and waits for none that is slow."""

import threading
from typing import Any, cast

import pytest

from api import module_watch
from api.module_watch import ModuleWatch
from tokens.errors import SecurityModuleAway, TokenError
from tokens.security_module import SecurityModule


class Module:
    """Answers as told, once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.refusal: Exception | None = None

    def key_check_value(self, sgc: str, krn: int) -> str:
        self.asked += 1
        assert self.may_answer.wait(30)
        if self.refusal is not None:
            raise self.refusal
        return "ABCDEF"


@pytest.fixture
def module() -> Module:
    return Module()


class Wall:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def watch(module: Module, wall: Wall) -> ModuleWatch:
    return ModuleWatch(cast("SecurityModule", module), wall)


@pytest.mark.parametrize(
    ("refusal", "state"),
    [
        (None, "ready"),
        (TokenError("key_unknown", "no such key"), "ready"),
        (TokenError("peer_refused", "not you"), "away"),
        (SecurityModuleAway("unplugged"), "away"),
    ],
)
def test_an_answer_is_what_tells(
    watch: ModuleWatch, module: Module, refusal: Any, state: str
) -> None:
    module.refusal = refusal
    assert watch.state() == state


def test_one_question_is_asked_at_a_time_and_its_answer_holds_a_while(
    watch: ModuleWatch, module: Module, wall: Wall
) -> None:
    for _ in range(3):
        assert watch.state() == "ready"
    assert module.asked == 1
    wall.now += module_watch.HOLDS_S
    assert watch.state() == "ready"
    # A clock that was set back keeps no answer for ever.
    wall.now -= 1000
    assert watch.state() == "ready"
    assert module.asked == 3


def test_a_slow_module_is_away_until_it_answers(
    watch: ModuleWatch, module: Module, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_watch, "WAIT_S", 0.01)
    module.may_answer.clear()
    assert watch.state() == "away"
    wall.now += 100
    assert watch.state() == "away"
    assert module.asked == 1
    module.may_answer.set()
    monkeypatch.setattr(module_watch, "WAIT_S", 30)
    assert watch.state() == "ready"
