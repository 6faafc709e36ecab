#!/usr/bin/env python3
"""check_catalogue.py - checks docs/amp.md's tables against the tests: wherever a row says `name` ... tests/x.cpp, a test title of that file holds the name.

A row of a table without a file must say that it does not apply.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = re.compile(r"tests/\S+\.cpp")
TITLE = re.compile(r'TEST_CASE\(((?:\s*"(?:[^"\\]|\\.)*")+)\s*\)')


def titles(path):
    """The titles of a file's tests, adjacent literals joined."""
    return ["".join(re.findall(r'"((?:[^"\\]|\\.)*)"', t)) for t in TITLE.findall(path.read_text())]


def check(document):
    wrong, heading, catalogue = [], "", False
    for number, line in enumerate(document.splitlines(), 1):
        if line.startswith("#"):
            heading = line
            catalogue = "tests" in heading.lower() or "different" in heading.lower()
        cells = [c.strip() for c in line.strip("|").split("|")]
        if not catalogue or not line.startswith("|") or line.startswith("|---") or cells[0] in ("in torch", "PyTorch's test"):
            continue
        file = FILE.search(cells[-1])
        if not file:
            if "does not apply" not in cells[-1]:
                wrong.append(f"{number}: neither a test nor \"does not apply\"")
            continue
        path = ROOT / file[0]
        if not path.is_file():
            wrong.append(f"{number}: {file[0]} is not there")
            continue
        names = re.findall(r"`([^`]+)`", cells[-1][:file.start()] if len(cells) == 3 else cells[0])
        for name in names:
            if not any(name in t for t in titles(path)):
                wrong.append(f"{number}: no test of {file[0]} is called `{name}`")
    return wrong


def main():
    wrong = check((ROOT / "docs/amp.md").read_text())
    for line in wrong:
        print(f"docs/amp.md:{line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
