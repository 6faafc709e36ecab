#!/usr/bin/env python3
"""mezzo and PyTorch side by side: the same training steps, alternating in the same minutes; medians, ratios, targets, bench/RESULTS.md.

    bench/compare.py                                  # every row of the table of targets: about an hour on two cores
    bench/compare.py --quick                          # each row once, few steps
    bench/compare.py --rows small,124m-256 --rounds 5
    bench/compare.py --venv DIR --only 'bf16' --no-write

Every contender is a process of its own. In each round all of them run once, in an order that turns from round to round; a ratio is
taken within a round, and the median of the rounds' ratios is what counts: a machine's drift touches both sides of it alike.
"""

import argparse
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from peers import environment  # noqa: E402
from side_by_side import report  # noqa: E402
from side_by_side.contenders import ROOT, alternate  # noqa: E402
from side_by_side.rows import ROWS, contenders, startup_bytes  # noqa: E402

DEFAULT_ROWS = [name for name in ROWS if name != "toy"]


def rows_of(text):
    names = text.split(",")
    for name in names:
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"`{name}` given, of {', '.join(ROWS)} wanted")
    return names


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=rows_of, default=DEFAULT_ROWS, help=f"with commas between them, of {', '.join(ROWS)}")
    parser.add_argument("--only", metavar="REGEX", default="", help="contenders whose label has it, e.g. 'mezzo|bf16 eager'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="timed steps of one process, instead of the row's own number")
    parser.add_argument("--quick", action="store_true", help="one round of three steps")
    parser.add_argument("--seconds", type=float, default=900, help="a process that takes longer is ended, and said to")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mezzo", default=str(ROOT / "build" / "release" / "mezzo"))
    parser.add_argument("--venv", metavar="DIR", help="a virtual environment that has PyTorch, instead of the one made under build/")
    parser.add_argument("--no-tcmalloc", action="store_true", help="leave out the runs with tcmalloc preloaded")
    parser.add_argument("--peers-only", action="store_true", help="PyTorch alone; writes nothing")
    parser.add_argument("--own-only", action="store_true", help="mezzo alone; writes nothing")
    parser.add_argument("--no-write", action="store_true", help="print only; leave bench/RESULTS.md and bench/charts as they are")
    args = parser.parse_args(words)
    args.words = words
    if args.quick:
        args.rounds, args.steps = 1, args.steps or 3
    args.writes = not (args.peers_only or args.own_only or args.no_write)
    if not args.peers_only and not Path(args.mezzo).exists():
        parser.error(f"there is no {args.mezzo}: run ./dev build, or time the peers alone with --peers-only")
    if args.venv and not (Path(args.venv) / "bin" / "python").exists():
        parser.error(f"--venv {args.venv} given, but it has no bin/python")
    return args


def main():
    args = parse(sys.argv[1:])
    args.python = "" if args.own_only else str(Path(args.venv).absolute() / "bin" / "python") if args.venv else environment.python()
    mezzo_start = startup_bytes(args)
    for name in args.rows:
        every = [c for c in contenders(args, ROWS[name]) if re.search(args.only, c.label)]
        if not every:
            continue
        alternate(every, args.rounds, args.seconds)
        text = report.section(args, name, ROWS[name], every, mezzo_start)
        print(text, flush=True)
        if args.writes:
            report.write(name, text)


if __name__ == "__main__":
    main()
