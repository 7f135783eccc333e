"""`prepaid rate FILE|DIR`: the pure engine on scenario files (rating contract, section 10)."""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from credit_engine.errors import CreditError
from credit_engine.scenario import parse_scenario, run
from credit_engine.scenario_report import differences

SUFFIXES = (".yaml", ".json")
STANDARD_INPUT = "-"


class _CoreConstructor(SafeConstructor):
    """YAML 1.2 core schema: it knows no timestamps, so an instant is a string, quoted or not."""


_CoreConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def register(app: typer.Typer) -> None:
    app.command(name="rate")(rate)


def rate(source: str = typer.Argument(metavar="FILE|DIR|-")) -> None:
    """Rate one scenario and print the result as JSON, or check all scenarios below a folder."""
    path = Path(source)
    if source != STANDARD_INPUT and path.is_dir():
        raise typer.Exit(1 if check_folder(path) else 0)
    result = run(parse_scenario(read_scenario(source)))
    sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=2) + "\n")


def check_folder(folder: Path) -> int:
    """Run every scenario below `folder` that has an `expected`; the number that failed."""
    passed = failed = 0
    paths = (each for each in folder.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    for path in sorted(paths):
        try:
            mapping = read_scenario(str(path))
        except CreditError as error:
            lines: list[str] = [str(error)]
        else:
            if not isinstance(mapping, dict) or "expected" not in mapping:
                continue
            lines = check(mapping)
        for line in lines:
            sys.stdout.write(f"{path}: {line}\n")
        passed, failed = (passed, failed + 1) if lines else (passed + 1, failed)
    sys.stdout.write(f"{passed} passed, {failed} failed\n")
    return failed


def check(mapping: dict[str, Any]) -> list[str]:
    """How the result of a scenario differs from its `expected`; empty if it does not."""
    expected = mapping["expected"]
    wanted = expected.get("error") if isinstance(expected, dict) else None
    try:
        result = run(parse_scenario(mapping))
    except CreditError as error:
        if wanted is not None and str(wanted) in str(error):
            return []
        return [f"error: expected {wanted!r}, got {str(error)!r}"]
    if wanted is not None:
        return [f"error: expected {wanted!r}, got a result"]
    return differences(expected, result)


def read_scenario(source: str) -> Any:
    """Read YAML 1.2 or JSON from a file or, for `-`, from standard input.

    Errors: CreditError bad_input, on one line.
    """
    try:
        if source == STANDARD_INPUT:
            text = sys.stdin.buffer.read().decode()
        else:
            text = Path(source).read_bytes().decode()
    except OSError as error:
        _refuse(source, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        _refuse(source, "is not UTF-8")
    try:
        if source.endswith(".json"):
            return json.loads(text, object_pairs_hook=_distinct_keys)
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _CoreConstructor
        return yaml.load(text)
    # A value that YAML itself cannot build, as 0x or a far date, surfaces as ValueError.
    except (YAMLError, ValueError, RecursionError) as error:
        _refuse(source, f"is not YAML 1.2 or JSON: {' '.join(str(error).split())}")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice} stands twice")
    return mapping


def _refuse(source: str, message: str) -> NoReturn:
    raise CreditError("bad_input", f"{source}: {message}")
