from pathlib import Path

from schemas.json_schemas import json_schemas

FOLDER = Path(__file__).parents[2] / "schemas" / "json"


def test_the_published_schemas_are_those_of_the_code() -> None:
    published = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert published == json_schemas(), "run scripts/generate_schemas.py"
