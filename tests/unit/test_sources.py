"""The sources' form: lines have an end, and the gateware has one statement and one member a line."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("hw", "firmware", "host", "sim", "models", "docs", "tests")
LONGEST = 118  # characters of a line
LONGEST_OF_GATEWARE = 100


def sources(*folders):
    """All modules below some folders, sorted by path."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def too_long(files, most):
    return [f"{path.relative_to(ROOT)}:{number}" for path in files
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if len(line) > most]


def test_no_line_is_too_long():
    files = sources(*FOLDERS)
    assert Path(__file__).resolve() in files
    assert not (found := too_long(files, LONGEST)), f"longer than {LONGEST} characters: {', '.join(found)}"
    found = too_long(sources("hw"), LONGEST_OF_GATEWARE)
    assert not found, f"longer than {LONGEST_OF_GATEWARE} characters: {', '.join(found)}"


def is_assignment(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "eq"


def is_member(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("In", "Out")


def crowded(tree):
    """Lines with a second assignment of a list, or a second member of a signature."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List) and any(map(is_assignment, node.elts)):
            starts = [element.lineno for element in node.elts]
        elif isinstance(node, ast.Dict) and any(map(is_member, node.values)):
            starts = [value.lineno for value in node.values]
        else:
            continue
        yield from (line for line in starts if starts.count(line) > 1)


def test_gateware_has_one_assignment_and_one_member_a_line():
    found = [f"{path.relative_to(ROOT)}:{line}" for path in sources("hw")
             for line in crowded(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found, f"more than one statement or member on a line: {', '.join(found)}"


def test_crowded_lines_are_found():
    assert list(crowded(ast.parse("m.d.comb += [a.eq(1), b.eq(2)]"))) == [1, 1]
    assert list(crowded(ast.parse("{\n'a': In(1), 'b': Out(1)}"))) == [2, 2]
    assert not list(crowded(ast.parse("m.d.comb += [\n  a.eq(1),\n  b.eq(2),\n]\nm.d.comb += [a.eq(1)]")))
