"""Who may call which route: read from what the routes themselves declare."""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from api.admission import calls_of
from api.dependencies import OPERATOR_ROLES, Allowed, anyone, signed_by
from api.paths import routes_of

PARTNER = "partner"
ANYONE = "anyone"
CALLERS = ("customer", PARTNER, *OPERATOR_ROLES, ANYONE)
TITLE = """# Roles

Who may call which route of the API; generated from the routes by `scripts/generate_roles.py`, and
a test calls every route as every role. A customer sees what is his own; an operator sees his
centres, and what lies outside them looks like what does not exist. `all` asks for an operator of
every centre.

"""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a route declares; `callers` is empty for one that declares nothing: a defect."""

    method: str
    path: str
    callers: frozenset[str]
    everywhere: bool


def declared(app: FastAPI) -> list[Declared]:
    """Every route below `/v1` and of the service, by path."""
    found = [
        _declared(route, method) for route in routes_of(app) for method in sorted(route.methods)
    ]
    return sorted(found, key=lambda each: (each.path, each.method))


def roles_text(app: FastAPI) -> str:
    """docs/roles.md."""
    head = ["method", "path", *CALLERS, "centres"]
    rows = [
        [
            each.method,
            f"`{each.path}`",
            *("x" if caller in each.callers else "" for caller in CALLERS),
            "all" if each.everywhere else "",
        ]
        for each in declared(app)
    ]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return TITLE + "\n".join(lines) + "\n"


def _declared(route: Any, method: str) -> Declared:
    calls = list(calls_of(route.dependant))
    allowed = [call for call in calls if isinstance(call, Allowed)]
    callers: frozenset[str] = frozenset()
    if allowed:
        callers = frozenset.intersection(*(frozenset[str](each.roles) for each in allowed))
    elif signed_by in calls:
        callers = frozenset({PARTNER})
    elif anyone in calls:
        callers = frozenset(CALLERS)
    return Declared(method, route.path_format, callers, any(each.everywhere for each in allowed))
