"""`prepaid migrate`: bring the database to this version's schema."""

import sys

import typer

from prepaid.settings import Settings
from store.migrate import migrate as migrate_database


def register(app: typer.Typer) -> None:
    app.command()(migrate)


def migrate() -> None:
    """Apply what is missing of the schema to PREPAID_DATABASE__URL; safe to run at any time."""
    applied = migrate_database(
        Settings().database_url(), lambda text: sys.stderr.write(f"{text}\n")
    )
    sys.stdout.write(f"{len(applied)} applied\n")
