"""Whether the security module answers: asked seldom, and never waited for long.

Anybody may ask whether we are ready, and an HSM has other work; so one question is under way at
most, and its answer holds for a while.
"""

import threading
from collections.abc import Callable
from typing import Literal

from tokens.errors import SecurityModuleAway, TokenError
from tokens.security_module import SecurityModule

ModuleState = Literal["ready", "away"]
Slot = tuple[str, int]
# As long as an answer holds, in seconds: less than a watcher's usual interval.
HOLDS_S = 5.0
# Of one that is slower than this it is not waited for: vending would wait as long.
WAIT_S = 2.0
# Of nobody: to say that it does not know this key, a module has to answer.
UNKNOWN_SLOT: Slot = ("000000", 1)


class ModuleWatch:
    """Asks `module` for the check value of a key, which gives nothing away, in its own thread."""

    def __init__(self, module: SecurityModule, wall_s: Callable[[], float]) -> None:
        self._module = module
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._slot = UNKNOWN_SLOT
        self._state: ModuleState = "away"
        self._asked_s: float | None = None
        self._answered = threading.Event()
        self._answered.set()

    def know(self, slot: Slot | None) -> None:
        """A key that is in use: an HSM opens it, where of an unknown one it is not even asked."""
        if slot is not None:
            self._slot = slot

    def state(self) -> ModuleState:
        """The state of now, or of some seconds ago; `away` while an answer does not come."""
        with self._lock:
            now_s = self._wall_s()
            old = self._asked_s is None or not 0 <= now_s - self._asked_s < HOLDS_S
            if old and self._answered.is_set():
                self._answered.clear()
                self._asked_s = now_s
                threading.Thread(target=self._ask, name="module-watch", daemon=True).start()
        return self._state if self._answered.wait(WAIT_S) else "away"

    def _ask(self) -> None:
        state: ModuleState = "away"
        try:
            self._module.key_check_value(*self._slot)
            state = "ready"
        except SecurityModuleAway:
            pass
        except TokenError as refusal:
            # One that serves others and not us is none.
            state = "ready" if refusal.code == "key_unknown" else "away"
        finally:
            self._state = state
            self._answered.set()
