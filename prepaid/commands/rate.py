"""`prepaid rate FILE|DIR`: the pure engine on scenario files (rating contract, section 10)."""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode

from credit_engine.errors import CreditError
from credit_engine.scenario import parse_scenario, run
from credit_engine.scenario_report import differences

SUFFIXES = (".yaml", ".json")
STANDARD_INPUT = "-"


# Numbers of the YAML 1.2 core schema (10.3.2); the reader knows more, such as 1_000 and 0b11.
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _CoreConstructor(SafeConstructor):
    """YAML 1.2 core schema: it knows no timestamps, so an instant is a string, quoted or not, and
    what is none of its numbers is a string, too.
    """

    def construct_yaml_int(self, node: ScalarNode) -> Any:
        core = _INT.fullmatch(node.value)
        return super().construct_yaml_int(node) if core else self.construct_yaml_str(node)

    def construct_yaml_float(self, node: ScalarNode) -> Any:
        core = _FLOAT.fullmatch(node.value)
        return super().construct_yaml_float(node) if core else self.construct_yaml_str(node)


for _tag, _construct in (
    ("int", _CoreConstructor.construct_yaml_int),
    ("float", _CoreConstructor.construct_yaml_float),
    ("timestamp", _CoreConstructor.construct_yaml_str),
    ("value", _CoreConstructor.construct_yaml_str),
):
    _CoreConstructor.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)


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
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        else:
            text = Path(source).read_bytes().decode("utf-8-sig")
    except OSError as error:
        _refuse(source, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        _refuse(source, "is not UTF-8")
    try:
        if source.endswith(".json"):
            return json.loads(text, object_pairs_hook=_distinct_keys)
        if source == STANDARD_INPUT and text.lstrip().startswith("{"):
            # Perhaps JSON, which escapes what YAML does not; YAML begins so, too.
            with suppress(json.JSONDecodeError):
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
