"""`prepaid migrate`: bring the database to this version's schema."""

import sys

import typer

from prepaid.settings import Settings
from store.migrate import migrate as migrate_database
from store.roles import Login


def register(app: typer.Typer) -> None:
    app.command()(migrate)


def migrate() -> None:
    """Apply what is missing of the schema, and give the application its grants; safe to repeat.

    PREPAID_DATABASE__OWNER_URL is who owns the schema, PREPAID_DATABASE__URL who the programs
    connect as: a login that is made if it is missing, and can rewrite nothing that is recorded.
    With the second alone, it does both.
    """
    settings = Settings()
    owner, application = settings.owner_url(), settings.database_url()
    login = None if owner == application else Login.of(application)
    applied = migrate_database(owner, _progress, login)
    sys.stdout.write(f"{len(applied)} applied\n")


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
