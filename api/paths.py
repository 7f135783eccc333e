"""The routes of an application, and what may be done at a path."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

# What watches over the service asks as often as it likes, also for the head alone.
WATCHED = frozenset({"/healthz", "/readyz", "/metrics"})


def routes_of(app: FastAPI) -> Iterator[Any]:
    """The framework keeps included routers as they are and says their routes when asked."""
    for route in app.routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is not None:
            yield from contexts()
        elif hasattr(route, "dependant"):
            yield route


def methods_at(app: FastAPI, path: str) -> list[str]:
    """Of all routes of a path: one that lacks a method may stand before one that has it."""
    at = (each.methods for each in routes_of(app) if each.path_regex.match(path))
    return sorted({method for methods in at for method in methods})
