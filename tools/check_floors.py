#!/usr/bin/env python3
"""check_floors.py - checks who includes whom: a file may include its own module and strictly lower floors (docs: the house).

    tools/check_floors.py              checks the repository, prints each violation as file:line, exits 1 if there is one
    tools/check_floors.py --self-test  checks the checker on a small tree of right and wrong files
"""
import pathlib
import re
import sys
import tempfile

# Modules are the folders of src/.
FLOOR = {"core": 0, "dtype": 1, "kernels": 2, "tensor": 2, "autograd": 3, "io": 3, "ops": 4, "text": 4, "nn": 5, "optim": 5,
         "amp": 6, "inspect": 6, "models": 6, "train": 7, "cli": 8}

# One step between neighbours of a floor: tensors copy and convert with kernels, kernels know no tensor.
STEPS = {("tensor", "kernels")}

# The module that a public header belongs to. <mezzo/mezzo.h> is everything, so only programs include it.
PUBLIC = {"error": "core", "runtime": "core", "random": "core", "dtype": "dtype", "tensor": "tensor", "autograd": "autograd",
          "policy": "autograd", "io": "io", "ops": "ops", "text": "text", "nn": "nn", "optim": "optim", "amp": "amp", "inspect": "inspect", "models": "models",
          "train": "train", "fast_language_model": "train", "mezzo": "train"}

# Libraries that stay behind one door: what their headers begin with, and the folder that may include them.
FENCED = {"hwy/": "src/kernels/", "oneapi/": "src/kernels/gemm/", "dnnl": "src/kernels/gemm/"}

SUFFIXES = {".h", ".cpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def module_of(path):
    """The module of a file of src/ or include/mezzo/; None for other files."""
    parts = path.parts
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    if parts[:2] == ("include", "mezzo"):
        return PUBLIC.get(path.stem)
    return None


def check_include(path, module, quoted, header):
    """What is wrong with one #include of the file `path`, or None."""
    first = header.split("/")[0]
    for prefix, folder in FENCED.items():
        if header.startswith(prefix):
            return None if path.as_posix().startswith(folder) else f"<{header}> is for {folder} only"
    if first == "mezzo" and not quoted:
        target = PUBLIC.get(pathlib.PurePath(header).stem)
        if target is None:
            return f"<{header}> belongs to no module: add it to PUBLIC in tools/check_floors.py"
    elif not quoted:
        return None  # the standard library or a dependency
    elif path.parts[:2] == ("examples", "paper") and header.startswith("kernels/ref/"):
        return None  # the oracle itself is what these show
    elif path.parts[0] != "src":
        return f'"{header}": public headers and examples include <mezzo/...> only'
    elif first not in FLOOR or "/" not in header:
        return f'"{header}": own headers are included as "module/file.h"'
    else:
        target = first
    if module is None or target == module or FLOOR[target] < FLOOR[module] or (module, target) in STEPS:
        return None
    return f"{module} (floor {FLOOR[module]}) includes {header} of {target} (floor {FLOOR[target]})"


def violations(root):
    files = [f.relative_to(root) for folder in ("include", "src", "examples") for f in sorted((root / folder).rglob("*")) if f.suffix in SUFFIXES]
    for path in files:
        module = module_of(path)
        if path.parts[0] != "examples" and module not in FLOOR:
            yield f"{path}:1: belongs to no module of tools/check_floors.py"
            continue
        for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            problem = match and check_include(path, module, match[1] == '"', match[2])
            if problem:
                yield f"{path}:{number}: {problem}"


def self_test():
    # Each line of each file that must be found ends in the word that its violation must contain.
    tree = {
        "include/mezzo/error.h": ["#include <string>"],
        "include/mezzo/tensor.h": ["#include <mezzo/dtype.h>", "#include <mezzo/ops.h> // ops", '#include "tensor/impl.h" // public'],
        "include/mezzo/mystery.h": ["#pragma once // module"],
        "src/core/a.cpp": ['#include "core/a.h"', "#include <mezzo/error.h>", '  #  include "dtype/b.h" // dtype', '// #include "cli/c.h"'],
        "src/tensor/layout.cpp": ['#include "kernels/kernels.h"', '#include "core/a.h"', "#include <mezzo/tensor.h>"],
        "src/kernels/cpu/k.cpp": ["#include <hwy/highway.h>", '#include "tensor/impl.h" // tensor', "#include <oneapi/dnnl/dnnl.hpp> // gemm"],
        "src/kernels/gemm/g.cpp": ["#include <oneapi/dnnl/dnnl.hpp>", "#include <fmt/core.h>"],
        "src/ops/o.cpp": ['#include "autograd/node.h"', "#include <hwy/highway.h> // kernels", '#include "o.h" // module/file.h',
                          '#include "text/t.h" // text', "#include <mezzo/unheard.h> // PUBLIC", "#include <mezzo/mezzo.h> // train"],
        "src/cli/main.cpp": ["#include <mezzo/mezzo.h>", '#include "train/step.h"'],
        "src/stray.cpp": ["int x; // module"],
        "examples/e.cpp": ["#include <mezzo/mezzo.h>", '#include "core/fail.h" // public'],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        wanted = {}
        for name, lines in tree.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("\n".join(lines))
            for number, line in enumerate(lines, 1):
                if " // " in line:
                    wanted[f"{name}:{number}"] = line.split(" // ")[1]
        found = {v.split(": ", 1)[0]: v.split(": ", 1)[1] for v in violations(root)}
    bad = [f"missed {place}" for place in wanted.keys() - found.keys()] + [f"false alarm {place}: {found[place]}" for place in found.keys() - wanted.keys()]
    bad += [f"{place} says {found[place]!r}, wanted {word!r} in it" for place, word in wanted.items() if place in found and word not in found[place]]
    print("\n".join(bad) if bad else f"check_floors: self-test passed, {len(wanted)} violations found, no false alarm")
    return bool(bad)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        sys.exit(__doc__)
    found = list(violations(pathlib.Path(__file__).resolve().parent.parent))
    print("\n".join(found) if found else "check_floors: every include looks down")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
