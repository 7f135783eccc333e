"""Reckon docs/capacity.md from the runs of docs/measurements. A test fails when they differ."""

from pathlib import Path

from benchmarks.capacity import filled


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    path = docs / "capacity.md"
    text = filled(path.read_text(encoding="utf-8"), docs / "measurements")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
