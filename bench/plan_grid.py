#!/usr/bin/env python3
"""`mezzo plan` against what then happens, over a grid of models, recipes, batches, adapters and whole models: ratios of bytes and of time.

    bench/plan_grid.py                                                       # the models that need no file
    bench/plan_grid.py --base build/models/SmolLM2-135M-Instruct.Q4_1.gguf --base HF_DIR
    bench/plan_grid.py --only 'gpt 6x384 .* bf16' --rounds 3 --results grid.jsonl   # runs are added to the file
    bench/plan_grid.py --table grid.jsonl                                    # the table of a file, without running

A row: the plan, then the run it speaks of (`mezzo bench`, `mezzo finetune`), then the next round. Bytes are compared exactly; of the rounds' ratios of
time the median counts. Wanted: bytes within 5 %, time within 25 %.
"""
import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BYTES, TIME = 0.05, 0.25  # how far a plan may be off

SCRATCH = {
    "gpt 2x64": ("gpt:layers=2,heads=4,width=64,vocab=256", [(4, 64), (16, 64)]),
    "gpt 6x384": ("gpt:layers=6,heads=6,width=384,vocab=256", [(4, 64), (12, 256)]),
    "llama 4x512": ("llama:layers=4,heads=8,kv_heads=4,width=512,ffn=1408,vocab=4000", [(1, 128), (4, 128)]),
    "gpt2-124m": ("gpt2-124m", [(1, 64), (4, 64)]),
}
RECIPES = ["fp32", "bf16", "bf16-split", "bf16-sr", "fp16"]
TUNED = [("LoRA 16", ["--lora-rank", "16"], ["bf16", "fp32"], [(1, 128), (4, 128)]), ("full", ["--full"], ["bf16", "bf16-sr"], [(1, 128), (4, 128)])]


@dataclass
class Row:
    name: str
    options: list  # of the plan
    tuned: bool = False


def rows(bases):
    out = [Row(f"{name}, B {b}, T {t}, {recipe}", ["--model", spec, "--batch", str(b), "--seq", str(t), "--precision", recipe, "--clip-norm", "0"])
           for name, (spec, sizes) in SCRATCH.items() for b, t in sizes for recipe in RECIPES]
    for base in bases:
        kind = "GGUF" if base.suffix == ".gguf" else "HF"
        out += [Row(f"SmolLM2-135M {kind}, {what}, B {b}, T {t}, {recipe}", ["--model", str(base), *how, "--batch", str(b), "--seq", str(t), "--precision", recipe], True)
                for what, how, recipes, sizes in TUNED for b, t in sizes for recipe in recipes]
    return out


def run(program, *words):
    done = subprocess.run([program, *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measure(program, row, steps, work):
    begin = time.monotonic()
    plan = run(program, "plan", *row.options)
    planning = time.monotonic() - begin
    if row.tuned:
        data, out = work / "text.jsonl", work / f"run-{time.monotonic_ns()}"
        if not data.exists():  # long texts: every window is full, as the plan takes it to be
            data.write_text("".join(json.dumps({"text": "the quick brown fox jumps over the lazy dog and " * 400}) + "\n" for _ in range(20)))
        happened = run(program, "finetune", *row.options, "--data", str(data), "--steps", str(steps), "--val-fraction", "0", "--eval-steps", "0",
                       "--checkpoint-steps", "0", "--out", str(out))
        subprocess.run(["rm", "-rf", str(out)])
    else:
        options = row.options[: row.options.index("--clip-norm")]
        happened = run(program, "bench", *options, "--steps", str(steps))
    return {"row": row.name, "planning_seconds": planning, "planned_bytes": plan["peak_bytes"], "bytes": happened["peak_bytes"], "planned_ms": plan["step_ms"],
            "ms": happened["step_ms_median"], "planned_parts": plan.get("parts"), "parts": happened.get("parts")}


def table(results):
    """Markdown, and a line of what it comes to."""
    by_row = {}
    for r in results:
        by_row.setdefault(r["row"], []).append(r)
    out = ["| | bytes, planned/held | planned ms | measured ms | planned/measured |", "|---|---|---|---|---|"]
    off_bytes, off_time, ratios = 0, [], []
    mib = 1 << 20
    for name, runs in by_row.items():
        b = max((r["planned_bytes"] / r["bytes"] for r in runs), key=lambda x: abs(x - 1))
        t = statistics.median(r["planned_ms"] / r["ms"] for r in runs)
        ratios.append(t)
        off_bytes += abs(b - 1) > BYTES
        if not 1 - TIME <= t <= 1 + TIME:
            off_time.append(name)
        ms = [statistics.median(r[k] for r in runs) for k in ("planned_ms", "ms")]
        bold = "**" if name in off_time else ""
        out.append(f"| {name} | {runs[0]['planned_bytes'] / mib:.1f} MiB, {b:.3f} | {ms[0]:.3g} | {ms[1]:.3g} | {bold}{t:.2f}{bold} |")
    planning = [r["planning_seconds"] for r in results]
    out.append("")
    out.append(f"{len(by_row)} rows: bytes off by more than {BYTES:.0%} in {off_bytes}; time by more than {TIME:.0%} in {len(off_time)}; median ratio of time "
               f"{statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}. A plan took {statistics.median(planning):.1f} s ({max(planning):.1f} s at most).")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/release/mezzo"))
    parser.add_argument("--base", type=Path, action="append", default=[], help="a GGUF file or directory of SmolLM2-135M to fine-tune")
    parser.add_argument("--only", metavar="REGEX", default="", help="rows whose name has it")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--results", type=Path, help="a file that runs are added to")
    parser.add_argument("--table", type=Path, help="print the table of such a file")
    o = parser.parse_args()
    if o.table:
        print(table([json.loads(line) for line in o.table.read_text().splitlines()]))
        return
    chosen = [r for r in rows(o.base) if re.search(o.only, r.name)]
    if not chosen:
        sys.exit(f"--only {o.only}: no such row")
    results = []
    with tempfile.TemporaryDirectory() as work:
        for _ in range(o.rounds):
            for row in chosen:
                r = measure(o.program, row, o.steps, Path(work))
                results.append(r)
                print(f"{row.name:52} bytes {r['planned_bytes'] / r['bytes']:.3f}  {r['planned_ms']:8.3g} planned, {r['ms']:8.3g} ms: {r['planned_ms'] / r['ms']:.2f}", file=sys.stderr)
                if o.results:
                    with o.results.open("a") as f:
                        f.write(json.dumps(r) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
