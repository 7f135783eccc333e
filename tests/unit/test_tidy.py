"""The house style that no linter knows: sizes, purity, places, names, and what never goes in."""

import ast
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
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


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def faults(paths: Iterable[Path], look: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """What `look` finds in each file where it finds something."""
    return {name_of(path): found for path in paths if (found := look(path))}


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


def test_functions_fit_on_a_screen_and_modules_in_a_head() -> None:
    def too_long(path: Path) -> list[str]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        return [
            *([f"{lines} lines"] if lines > MODULE_LINES else []),
            *(
                f"{node.name}: {last - node.lineno + 1} lines"
                for node in functions(path)
                if (last := node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
            ),
        ]

    assert faults([*MODULES, *TESTS], too_long) == {}


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


def test_pure_packages_know_no_float_no_clock_and_no_chance() -> None:
    pure = [path for path in MODULES if path.relative_to(ROOT).parts[0] in PURE]
    assert faults(pure, lambda path: list(impurities(path))) == {}


@pytest.mark.parametrize("bad", ["0.5", "float(1)", "1 / 2", "datetime.now()", "import random"])
def test_an_impurity_is_seen(tmp_path: Path, bad: str) -> None:
    module = tmp_path / "module.py"
    module.write_text(bad)
    assert list(impurities(module)) != []


def statements(path: Path) -> list[str]:
    """SQL in a module, outside its docstrings."""
    tree = tree_of(path)
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documented
        and SQL.search(node.value)
    ]


def test_sql_lives_in_the_store() -> None:
    elsewhere = [
        path
        for path in MODULES
        if path.relative_to(ROOT).parts[0] != "store" and name_of(path) not in SQL_EXCEPTIONS
    ]
    assert faults(elsewhere, statements) == {}


def test_names_say_what_is_inside() -> None:
    vague = re.compile(r"(Utils?|Helpers?|Common|Manager|Service|Misc)$")

    def vague_names(path: Path) -> list[str]:
        classes = [node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
        return [
            *(set(path.stem.split("_")) & FORBIDDEN_NAMES),
            *(name for name in classes if vague.search(name)),
        ]

    named = [path for path in MODULES if name_of(path) not in NAME_EXCEPTIONS]
    assert faults(named, vague_names) == {}


def test_no_module_shadows_the_standard_library() -> None:
    shadows = [
        name_of(path)
        for path in MODULES
        if path.stem in sys.stdlib_module_names and not path.stem.startswith("__")
    ]
    assert sorted(shadows) == sorted(STDLIB_EXCEPTIONS)


def test_what_is_switched_off_or_left_open_says_why() -> None:
    bare = re.compile(r"(noqa: [A-Z0-9, ]+|type: ignore(\[[\w, -]+\])?)\s*$")
    later = re.compile(r"\b(TODO|FIXME|XXX)\b")

    def unexplained(path: Path) -> list[str]:
        with path.open("rb") as source:
            comments = [
                (token.start[0], token.string)
                for token in tokenize.tokenize(source.readline)
                if token.type == tokenize.COMMENT
            ]
        return [
            f"line {line}: {text}"
            for line, text in comments
            if later.search(text) or (path in MODULES and bare.search(text))
        ]

    assert faults([*MODULES, *TESTS], unexplained) == {}


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


def test_no_constant_holds_a_secret() -> None:
    def secrets(path: Path) -> list[str]:
        return [
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

    assert faults(MODULES, secrets) == {}
