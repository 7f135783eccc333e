"""Write the API's description to api/openapi.json. A test fails when they differ."""

from pathlib import Path

from api.openapi import openapi_text


def main() -> None:
    path = Path(__file__).parent.parent / "api" / "openapi.json"
    path.write_text(openapi_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
