"""Write who may call which route to docs/roles.md. A test fails when they differ."""

from pathlib import Path

from api.openapi import described_app
from api.roles import roles_text


def main() -> None:
    path = Path(__file__).parent.parent / "docs" / "roles.md"
    path.write_text(roles_text(described_app()), encoding="utf-8")


if __name__ == "__main__":
    main()
