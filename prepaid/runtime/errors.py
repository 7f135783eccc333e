"""Why a private database or broker cannot be had; each message says what to do."""

from schemas.errors import DomainError


class RuntimeUnavailableError(DomainError):
    """The host cannot give or run PostgreSQL with TimescaleDB, or mosquitto."""
