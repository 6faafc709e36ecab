#!/usr/bin/env python3
"""check_readme.py - checks that the documents quote what is there: every C++ block comes out of examples/, every pasted output is what the program prints.

    tools/check_readme.py                    each ```cpp block stands below a line `<!-- examples/x.cpp -->` and is a verbatim part of that file
    tools/check_readme.py --programs DIR     runs DIR/example_x (example_folder_x), too, where a block stands below `<!-- output of examples/x.cpp -->`, and compares
    tools/check_readme.py --self-test        checks the checker

A quoted part may lose its common indentation. Of outputs, words and whole numbers must be the same; numbers with a fraction may differ by 10 % or by two
units of their last digit, whichever is more: instruction sets add in different orders.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import textwrap

BLOCK = re.compile(r"(?:^<!-- (?P<output>output of )?(?P<path>examples/\S+) -->\n\s*)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
FRACTION = re.compile(r"-?\d+\.\d+")


def quotes(body, source):
    """Whether the block is a run of whole lines of the source."""
    block = textwrap.dedent(body).splitlines()
    lines = source.splitlines()
    return any(textwrap.dedent("\n".join(lines[i:i + len(block)])).splitlines() == block for i in range(len(lines) - len(block) + 1))


def same_word(wanted, given):
    if not (FRACTION.fullmatch(wanted) and FRACTION.fullmatch(given)):
        return wanted == given
    last_digit = 10.0 ** -len(wanted.split(".")[1])
    return abs(float(wanted) - float(given)) <= max(0.1 * abs(float(wanted)), 2 * last_digit) * (1 + 1e-9)


def output_differs(wanted, given):
    """The first pair of lines that differ, or None."""
    wanted, given = wanted.splitlines(), given.splitlines()
    for i in range(max(len(wanted), len(given))):
        w, g = (lines[i] if i < len(lines) else "(no line)" for lines in (wanted, given))
        if len(w.split()) != len(g.split()) or not all(map(same_word, w.split(), g.split())):
            return w, g
    return None


def check(document, read, run):
    """What is wrong with a document, as lines. read(path) gives a file's text or None, run(path) what an example prints or None for "not asked"."""
    wrong = []
    for block in BLOCK.finditer(document):
        line = document.count("\n", 0, block.start("language")) + 1
        path, body = block["path"], block["body"]
        if path is None:
            if block["language"] == "cpp":
                wrong.append(f"{line}: a C++ block that is not quoted from examples/")
            continue
        source = read(path)
        if source is None:
            wrong.append(f"{line}: {path} is not there")
        elif block["output"]:
            printed = run(path)
            differs = None if printed is None else output_differs(body, printed)
            if differs:
                wrong.append(f"{line}: {path} does not print this\n    here:    {differs[0]}\n    printed: {differs[1]}")
        elif not quotes(body, source):
            wrong.append(f"{line}: this is no part of {path}")
    return wrong


def self_test():
    source = "int main() {\n  f();\n  g();\n}\n"
    document = "<!-- {} -->\n```{}\n{}```\n"

    def verdict(marker, language, body, printed="loss 0.50 at step 3\n"):
        return not check(document.format(marker, language, body), {"examples/x.cpp": source}.get, lambda path: printed)

    assert verdict("examples/x.cpp", "cpp", "  f();\n  g();\n") and verdict("examples/x.cpp", "cpp", "f();\ng();\n")
    assert not verdict("examples/x.cpp", "cpp", "g();\nf();\n") and not verdict("examples/x.cpp", "cpp", "f(\n")
    assert not verdict("examples/y.cpp", "cpp", "f();\n")
    assert not verdict("", "cpp", "f();\n") and verdict("", "python", "f()\n")
    output = "output of examples/x.cpp"
    assert verdict(output, "text", "loss 0.52 at step 3\n") and not verdict(output, "text", "loss 0.57 at step 3\n")
    assert not verdict(output, "text", "loss 0.50 at step 4\n") and not verdict(output, "text", "loss 0.50 at step 3\nmore\n")
    assert not verdict(output, "text", "loss 0.50 at step 3\n", "loss nan at step 3\n")
    print("check_readme: the checker works")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--programs", type=pathlib.Path, help="where example_x are")
    arguments.add_argument("--self-test", action="store_true")
    options = arguments.parse_args()
    if options.self_test:
        return self_test()

    root = pathlib.Path(__file__).resolve().parent.parent

    def read(path):
        return (root / path).read_text() if (root / path).is_file() else None

    def run(path):
        if options.programs is None:
            return None
        name = pathlib.PurePosixPath(path).relative_to("examples").with_suffix("")
        program = options.programs.resolve() / ("example_" + "_".join(name.parts))
        return subprocess.run([program], check=True, text=True, stdout=subprocess.PIPE).stdout

    bad = False
    for document in [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]:
        for line in check(document.read_text(), read, run):
            print(f"{document.relative_to(root)}:{line}", file=sys.stderr)
            bad = True
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
