"""Write the runs of docs/measurements into docs/performance.md. A test fails when they differ."""

from pathlib import Path

from benchmarks.page import filled


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    path = docs / "performance.md"
    text = filled(path.read_text(encoding="utf-8"), docs / "measurements")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
