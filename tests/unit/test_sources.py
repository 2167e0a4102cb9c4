"""Rules of CONTRIBUTING.md for every Python file."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("hw", "firmware", "host", "sim", "models", "docs", "tests")
LONGEST = 118  # characters of a line


def test_no_line_is_too_long():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert Path(__file__).resolve() in files
    found = [f"{path.relative_to(ROOT)}:{number}" for path in files
             for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if len(line) > LONGEST]
    assert not found, f"longer than {LONGEST} characters: {', '.join(found)}"
