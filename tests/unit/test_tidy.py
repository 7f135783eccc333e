"""The house style that no linter knows: sizes, purity, places, names, and what never goes in."""

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "schemas", "credit_engine", "tokens", "store", "meter_gateway", "api", "payments", "simulators",
    "benchmarks", "partner_client", "prepaid",
)  # fmt: skip
PURE = ("schemas", "credit_engine", "tokens")
FUNCTION_LINES = 70
MODULE_LINES = 500
FORBIDDEN_NAMES = {
    "utils", "util", "helpers", "helper", "common", "manager", "managers", "service", "services",
    "misc",
}  # fmt: skip
# Each with its reason.
NAME_EXCEPTIONS = {
    "prepaid/commands/sts.py": "what a token pays for is a service: electricity, water, gas, time",
}
SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT INTO|UPDATE\s+\w+\s+SET|DELETE FROM)\b", re.DOTALL)
SQL_EXCEPTIONS = {
    "prepaid/runtime/postgres.py": "starts a server: creates the role and the database",
    "simulators/state_file.py": "a fleet keeps its meters in a file; it may not know the store",
}
STDLIB_EXCEPTIONS = {
    "api/numbers.py": "read as api.numbers; nothing here uses the standard module",
    "tokens/numbers.py": "read as tokens.numbers; nothing here uses the standard module",
}
# Of a machine, or of a person on it. An example in a test calls a person by one letter.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/\w\w")
SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}|ghp_\w{36}|xox[bp]-\w{10}|eyJ\w{20,}\.eyJ"
)
SECRET_NAME = re.compile(r"password|passphrase|secret|api_?key|private_?key", re.IGNORECASE)
TEXT = {".py", ".sql", ".md", ".toml", ".yaml", ".yml", ".json", ".jsonl", ".txt", ".lock", ".ini"}

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def kept_files() -> list[Path]:
    """Every text file of the project that is not generated or downloaded."""
    skipped = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache",
               ".hypothesis", "node_modules", "dist", "build"}  # fmt: skip
    return [
        path
        for path in ROOT.rglob("*")
        if path.suffix in TEXT and path.is_file() and not skipped & set(path.parts)
    ]


def test_the_packages_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name_of)
def test_functions_fit_on_a_screen_and_modules_in_a_head(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES
    long = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == {}


def impurities(path: Path) -> Iterator[str]:
    """Floats, clocks and chance in a module."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"line {node.lineno}: the float {node.value}"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield f"line {node.lineno}: float"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield f"line {node.lineno}: true division"
        elif isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            yield f"line {node.lineno}: a clock"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                if name.split(".")[0] in {"time", "random", "secrets", "os", "socket", "asyncio"}:
                    yield f"line {node.lineno}: {name}"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.relative_to(ROOT).parts[0] in PURE], ids=name_of
)
def test_pure_packages_know_no_float_no_clock_and_no_chance(path: Path) -> None:
    assert list(impurities(path)) == []


@pytest.mark.parametrize("bad", ["0.5", "float(1)", "1 / 2", "datetime.now()", "import random"])
def test_an_impurity_is_seen(tmp_path: Path, bad: str) -> None:
    module = tmp_path / "module.py"
    module.write_text(bad)
    assert list(impurities(module)) != []


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.relative_to(ROOT).parts[0] != "store"], ids=name_of
)
def test_sql_lives_in_the_store(path: Path) -> None:
    if name_of(path) in SQL_EXCEPTIONS:
        return
    tree = tree_of(path)
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documented
        and SQL.search(node.value)
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_say_what_is_inside(path: Path) -> None:
    if name_of(path) in NAME_EXCEPTIONS:
        return
    assert not set(path.stem.split("_")) & FORBIDDEN_NAMES
    classes = [node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    vague = re.compile(r"(Utils?|Helpers?|Common|Manager|Service|Misc)$")
    assert [name for name in classes if vague.search(name)] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_shadows_the_standard_library(path: Path) -> None:
    if name_of(path) not in STDLIB_EXCEPTIONS:
        assert path.stem not in sys.stdlib_module_names or path.stem.startswith("__")


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name_of)
def test_what_is_switched_off_or_left_open_says_why(path: Path) -> None:
    with path.open("rb") as source:
        comments = [
            (token.start[0], token.string)
            for token in tokenize.tokenize(source.readline)
            if token.type == tokenize.COMMENT
        ]
    assert [line for line, text in comments if re.search(r"\b(TODO|FIXME|XXX)\b", text)] == []
    if path in MODULES:
        bare = re.compile(r"(noqa: [A-Z0-9, ]+|type: ignore(\[[\w, -]+\])?)\s*$")
        assert [line for line, text in comments if bare.search(text)] == []


def test_nothing_of_this_machine_and_no_secret_goes_in() -> None:
    found = []
    for path in kept_files():
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [
            f"{name_of(path)}: {match.group()!r}"
            for pattern in (MACHINE_PATH, SECRET)
            for match in pattern.finditer(text)
        ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_constant_holds_a_secret(path: Path) -> None:
    found = [
        target.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str | bytes)
        and len(node.value.value) >= 12
        for target in node.targets
        if isinstance(target, ast.Name)
        and SECRET_NAME.search(target.id)
        # The name of an environment variable is no secret.
        and not target.id.endswith("_VARIABLE")
    ]
    assert found == []
