"""What a row has shown, as Markdown and as a chart, between markers in bench/RESULTS.md."""

import datetime
import os
import platform
import re
import shlex
import statistics
import subprocess
from pathlib import Path

from peers import environment

from . import chart
from .contenders import ROOT, ratios, shown

RESULTS = ROOT / "bench" / "RESULTS.md"
CHARTS = ROOT / "bench" / "charts"
MIB = 1024 * 1024
ALONE = {"fraction_of_peak": "share of the peak of products in cache (6 x parameters x tokens)", "minor_faults_per_step": "minor faults a step",
         "mappings_per_step": "mappings a step"}


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)])


def milliseconds(x):
    return f"{x:.1f}" if x >= 10 else f"{x:.4f}"


def times(every, mezzo_start):
    rows = []
    for c in every:
        step = c.median("step_ms_median")
        if step is None:
            rows.append([c.label, c.failure, "", "", ""])
            continue
        each, peak = c.values("step_ms_median"), c.median("peak_rss_bytes")
        start = mezzo_start if c.ours else c.median("startup_rss_bytes")
        rate = c.median("tokens_per_second")
        rows.append([c.label, f"{milliseconds(step)} ({milliseconds(min(each))}-{milliseconds(max(each))})", f"{rate:.0f}" if rate else "",
                     f"{peak / MIB:.0f}", f"{(peak - start) / MIB:.0f}" if start and peak > start else ""])
    return table(["", "ms a step (range over rounds)", "tokens/s", "peak resident MiB", "less start-up"], rows)


def outcome(target, every):
    """(what is compared, the figures of the rounds); no figures where a side did not run. Of several peers, the hardest to beat."""
    by_label = {c.label: c for c in every}
    ours = by_label.get(target.ours)
    if not target.theirs:
        return f"{target.ours}: {ALONE[target.field]}", ours.values(target.field) if ours else []
    found = []
    for label in target.theirs:
        theirs = by_label.get(label)
        each = ratios(ours, theirs, target.field) if ours and theirs else []
        if each:
            found.append((label, [1 / x for x in each] if target.at_most else each))
    what = "memory of" if target.at_most else "times faster:"
    against = "as a share of" if target.at_most else "than"
    if not found or len(found) < len(target.theirs):
        return f"{what} {target.ours} {against} {' and '.join(target.theirs)}", []
    label, each = (max if target.at_most else min)(found, key=lambda pair: statistics.median(pair[1]))
    return f"{what} {target.ours} {against} {label}{', the harder to beat' if len(found) > 1 else ''}", each


def verdict(target, figure):
    reached = (lambda bound: figure <= bound) if target.at_most else (lambda bound: figure >= bound)
    return "aim reached" if reached(target.aim) else "met" if reached(target.must) else "**missed**"


def targets(row, every):
    rows = []
    for target in row.targets:
        what, each = outcome(target, every)
        must = f"{'at most ' if target.at_most else ''}{target.must:g}"
        if not each:
            rows.append([what, "not measured", must, f"{target.aim:g}", ""])
            continue
        figure = statistics.median(each)
        rows.append([what, f"{figure:.2f} ({min(each):.2f}-{max(each):.2f})", must, f"{target.aim:g}", verdict(target, figure)])
    return table(["", "figure (range over rounds)", "must", "aim", ""], rows) if rows else ""


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


def draw(name, row, every):
    """Writes the row's chart; the Markdown that shows it, empty where nothing ran."""
    entries = [(c.label, c.median("step_ms_median"), min(c.values("step_ms_median")), max(c.values("step_ms_median")), c.ours)
               for c in every if any(c.runs)]
    if not entries:
        return ""
    CHARTS.mkdir(exist_ok=True)
    (CHARTS / f"{name}.svg").write_text(chart.bars(row.title, "ms a step", entries))
    return f"\n![Milliseconds a step of {row.title}](charts/{name}.svg)\n"


def section(args, name, row, every, mezzo_start):
    now = datetime.datetime.now(datetime.timezone.utc)
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    picture = draw(name, row, every) if args.writes else ""
    return f"""### {name}: {row.title}

{now:%Y-%m-%d %H:%M} UTC. {machine(args)}.
{versions(args, every)}.
{args.rounds} round{'s' if args.rounds > 1 else ''} in turn; load average at the end {load}.

{times(every, mezzo_start)}
{picture}
{targets(row, every)}

A whole step: zero_grad, forward, loss, backward, AdamW. All of it again: `{shlex.join(["bench/compare.py", *map(shown, args.words)])}`; each contender:
```
{chr(10).join(c.shell() for c in every)}
```
"""


def write(name, text, path=RESULTS):
    """Replaces what stands between the row's markers, or appends it."""
    begin, end = f"<!-- compare.py {name}: begin; what is between the markers is overwritten -->", f"<!-- compare.py {name}: end -->"
    block = f"{begin}\n{text}{end}\n"
    old = path.read_text() if path.exists() else "# Results\n"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    path.write_text(pattern.sub(lambda _: block, old) if pattern.search(old) else f"{old.rstrip()}\n\n{block}")
