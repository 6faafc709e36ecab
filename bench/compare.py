#!/usr/bin/env python3
"""mezzo and PyTorch side by side: the same training steps, alternating in the same minutes; medians, ratios, bench/RESULTS.md.

    bench/compare.py                                  # the small GPT, all precisions
    bench/compare.py --workloads gpt2-124m --precisions fp32 bf16 --rounds 5
    bench/compare.py --peers-only --steps 3 --rounds 1

Every contender is a process of its own. In each round all of them run once, in an order that turns from round to round; a ratio is
taken within a round, and the median of the rounds' ratios is what counts: a machine's drift touches both sides of it alike.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
import environment  # noqa: E402

ROOT = environment.ROOT
RESULTS = ROOT / "bench" / "RESULTS.md"
PRECISIONS = ("fp32", "bf16", "fp16")
MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Workload:
    title: str
    layers: int
    heads: int
    width: int
    vocab: int
    context: int
    batch: int
    seq: int

    def spec(self):
        return f"gpt:layers={self.layers},heads={self.heads},width={self.width},vocab={self.vocab},context={self.context}"

    def peer_options(self):
        sizes = dataclasses.asdict(self)
        del sizes["title"]
        return [word for name, value in sizes.items() for word in (f"--{name}", str(value))]


WORKLOADS = {
    "small": Workload("GPT 6x384 (10.8 M parameters), B 12, T 256", 6, 6, 384, 65, 256, 12, 256),
    "small-short": Workload("GPT 6x384 (10.8 M parameters), B 4, T 64", 6, 6, 384, 65, 256, 4, 64),
    "gpt2-124m": Workload("GPT-2 124M, B 4, T 256", 12, 12, 768, 50257, 1024, 4, 256),
    "gpt2-124m-short": Workload("GPT-2 124M, B 4, T 64", 12, 12, 768, 50257, 1024, 4, 64),
}
TOY = Workload("toy", 1, 1, 32, 65, 8, 1, 8)


@dataclasses.dataclass
class Contender:
    label: str
    precision: str
    command: list
    env: dict
    preload: str = ""
    runs: list = dataclasses.field(default_factory=list)  # one per round: the program's JSON, or None
    failure: str = ""

    def run(self, seconds):
        """One process; its JSON goes into runs. A contender that failed or took too long is not tried again."""
        if self.failure:
            self.runs.append(None)
            return
        try:
            done = subprocess.run(self.command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=True)
            self.runs.append(json.loads(done.stdout))
        except subprocess.TimeoutExpired:
            self.failure = f"over {seconds:g} s"
        except subprocess.CalledProcessError as error:
            self.failure = (error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1]
        except json.JSONDecodeError as error:
            self.failure = f"not JSON: {error}"
        if self.failure:
            self.runs.append(None)

    def median(self, field):
        values = [run[field] for run in self.runs if run]
        return statistics.median(values) if values else None

    def shell(self):
        """The command as a person would type it at the root of the repository."""
        words = [os.path.relpath(word, ROOT) if os.path.isabs(word) and Path(word).is_relative_to(ROOT) else word for word in map(str, self.command)]
        return (f"LD_PRELOAD={self.preload} " if self.preload else "") + shlex.join(words)


def mezzo_command(args, workload, precision, steps):
    return [args.mezzo, "bench", "--model", workload.spec(), "--batch", str(workload.batch), "--seq", str(workload.seq),
            "--precision", precision, "--steps", str(steps), "--threads", str(args.threads), "--json"]


def contenders(args, workload):
    result = []
    if not args.peers_only:
        for precision in args.precisions:
            result.append(Contender(f"mezzo {precision}", precision, mezzo_command(args, workload, precision, args.steps), dict(os.environ)))
    preloads = {"": ""}
    if environment.tcmalloc() and not args.no_tcmalloc:
        preloads[", tcmalloc"] = environment.tcmalloc()
    for precision in args.precisions:
        for compiled in (False,) if args.no_compile else (False, True):
            for suffix, preload in preloads.items():
                command = [args.python, "bench/peers/gpt_torch.py", *workload.peer_options(), "--precision", precision,
                           "--steps", str(args.steps), "--threads", str(args.threads)] + ["--compile"] * compiled
                label = f"PyTorch {precision} {'compile' if compiled else 'eager'}{suffix}"
                result.append(Contender(label, precision, command, environment.variables(preload), preload))
    return result


def alternate(args, every):
    """rounds x contenders, turning the order by one each round."""
    for turn in range(args.rounds):
        first = turn % len(every)
        for contender in every[first:] + every[:first]:
            contender.run(args.seconds)
            run = contender.runs[-1]
            outcome = f"{run['step_ms_median']:9.1f} ms" if run else contender.failure
            print(f"round {turn + 1}/{args.rounds}  {contender.label:32} {outcome}", file=sys.stderr, flush=True)


def startup_bytes(args):
    """mezzo's resident bytes before there is a model to speak of: its peak with a toy one. PyTorch's script reports its own."""
    if args.peers_only:
        return None
    toy = Contender("toy", "fp32", mezzo_command(args, TOY, "fp32", steps=1), dict(os.environ))
    toy.run(args.seconds)
    return toy.median("peak_rss_bytes")


# ---- the report ------------------------------------------------------------------------------


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)])


def times(every, mezzo_start):
    rows = []
    for c in every:
        step = c.median("step_ms_median")
        if step is None:
            rows.append([c.label, c.failure, "", "", ""])
            continue
        each = [run["step_ms_median"] for run in c.runs if run]
        peak, start = c.median("peak_rss_bytes"), c.median("startup_rss_bytes") if c.label.startswith("PyTorch") else mezzo_start
        rows.append([c.label, f"{step:.1f} ({min(each):.1f}-{max(each):.1f})", f"{c.median('tokens_per_second'):.0f}", f"{peak / MIB:.0f}",
                     f"{(peak - start) / MIB:.0f}" if start else ""])
    return table(["", "ms a step (range over rounds)", "tokens/s", "peak resident MiB", "less start-up"], rows)


def speeds(every):
    """How many times faster each precision of mezzo is than every other contender; empty without mezzo."""
    ran = [c for c in every if any(c.runs)]
    own = [c for c in ran if c.label.startswith("mezzo")]
    rows = []
    for other in ran if own else []:
        cells = []
        for ours in own:
            each = ratios(ours, other)
            cells.append(f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})" if each and ours is not other else "")
        rows.append([f"than {other.label}", *cells])
    return table(["times faster (range over rounds)", *(c.label for c in own)], rows) if rows else ""


def ratios(ours, theirs):
    """theirs / ours, round by round."""
    return [b["step_ms_median"] / a["step_ms_median"] for a, b in zip(ours.runs, theirs.runs) if a and b]


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def machine(args):
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = set(re.search(r"flags\s*: (.*)", cpuinfo).group(1).split()) if "flags" in cpuinfo else set()
    wide = [f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16") if f in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} CPUs, {args.threads} threads used, {memory:.0f} GiB, "
            f"{' '.join(wide)}; Linux {platform.release()}")


def versions(args, every):
    torch = next((run["torch"] for c in every for run in c.runs if run and "torch" in run), "not run")
    facts = [f"PyTorch {torch}", f"tcmalloc {environment.tcmalloc() or 'not installed'}", f"Python {platform.python_version()}"]
    if not args.peers_only:
        version = first_line([args.mezzo, "--version"]).removeprefix("mezzo ")
        facts.insert(0, f"mezzo {version} at commit {first_line(['git', 'describe', '--always', '--dirty'])}")
    return ", ".join(facts)


def report(args, name, every, mezzo_start):
    now = datetime.datetime.now(datetime.timezone.utc)
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return f"""### {name}: {WORKLOADS[name].title}

{now:%Y-%m-%d %H:%M} UTC. {machine(args)}.
{versions(args, every)}.
{args.rounds} rounds of {args.steps} steps; load average at the end {load}.

{times(every, mezzo_start)}

{speeds(every)}

A whole step: zero_grad, forward, loss, backward, AdamW. All of it again: `{shlex.join(["bench/compare.py", *args.words])}`; each contender:
```
{chr(10).join(c.shell() for c in every)}
```
"""


def write_section(name, text):
    """Replaces what stands between the workload's markers in RESULTS.md, or appends it."""
    begin, end = f"<!-- compare.py {name}: begin; what is between the markers is overwritten -->", f"<!-- compare.py {name}: end -->"
    section = f"{begin}\n{text}{end}\n"
    old = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    RESULTS.write_text(pattern.sub(lambda _: section, old) if pattern.search(old) else f"{old.rstrip()}\n\n{section}")


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["small"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of one process")
    parser.add_argument("--seconds", type=float, default=600, help="a process that takes longer is ended, and said to")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mezzo", default=str(ROOT / "build" / "release" / "mezzo"))
    parser.add_argument("--python", help="an interpreter that has PyTorch, instead of the environment under build/")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--no-tcmalloc", action="store_true", help="leave out the runs with tcmalloc preloaded")
    parser.add_argument("--peers-only", action="store_true", help="PyTorch alone; writes nothing")
    parser.add_argument("--no-write", action="store_true", help="print only; leave bench/RESULTS.md as it is")
    args = parser.parse_args(words)
    args.words = words
    if not args.peers_only and not Path(args.mezzo).exists():
        parser.error(f"there is no {args.mezzo}: run ./dev build, or time the peers alone with --peers-only")
    return args


def main():
    args = parse(sys.argv[1:])
    args.python = args.python or environment.python()
    for name in args.workloads:
        every = contenders(args, WORKLOADS[name])
        mezzo_start = startup_bytes(args)
        alternate(args, every)
        text = report(args, name, every, mezzo_start)
        print(text)
        if not (args.peers_only or args.no_write):
            write_section(name, text)


if __name__ == "__main__":
    main()
