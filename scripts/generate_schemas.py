"""Write the JSON Schema of every wire form to schemas/json. A test fails when they differ."""

from pathlib import Path

from schemas.json_schemas import json_schemas


def main() -> None:
    folder = Path(__file__).parent.parent / "schemas" / "json"
    for old in folder.glob("*.json"):
        old.unlink()
    for name, text in json_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
