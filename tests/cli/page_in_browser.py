"""The pages of a run in a real browser: nothing on the console, nothing from the network, nothing wider than a phone, and figures that are those of
the JSON. Exits 77 (skipped) where there is no Chromium.

usage: page_in_browser.py PATH/TO/mezzo
"""
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

import browser

if not browser.program():
    print("skipped: no chromium found (apt-get install chromium)")
    sys.exit(77)

MEZZO = sys.argv[1]
WINDOWS = [("desktop", 1200, 900, False, False), ("desktop, dark", 1200, 900, False, True), ("phone", 390, 844, True, False), ("small phone", 320, 640, True, False)]


def mezzo(*arguments):
    done = subprocess.run([MEZZO, *arguments, "--json", "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def some_text():
    words = "the half of what a number holds is lost where nobody looks and a scale brings it back before anyone asks".split()
    state, out = 1, []
    for i in range(4000):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(words[state // 65536 % len(words)] + (".\n" if i % 11 == 10 else " "))
    return "".join(out)


# What a page says, as a reader would copy it: tables by their headings, curves by the coordinates that were drawn.
READ = r"""
(() => {
  const clean = s => s.replace(/\u00a0/g, ' ').trim();
  for (const d of document.querySelectorAll('details')) d.open = true;
  const section = e => { while (e && e.tagName != 'MAIN') { for (let p = e; p; p = p.previousElementSibling) if (p.tagName == 'H2') return clean(p.textContent); e = e.parentElement; } return ''; };
  const tables = [...document.querySelectorAll('table')].map(t => ({
    section: section(t), heat: t.className == 'heat',
    summary: t.closest('details') ? clean(t.closest('details').querySelector('summary').textContent) : '',
    head: [...t.querySelectorAll('thead th')].map(c => clean(c.textContent)),
    rows: [...t.querySelectorAll('tbody tr')].map(r => [...r.children].map(c => clean(c.textContent)))}));
  const charts = [...document.querySelectorAll('figure svg')].map(s => ({
    section: section(s),
    ticks: [...s.querySelectorAll('text.tick')].map(t => [clean(t.textContent), +t.getAttribute('x'), +t.getAttribute('y'), t.getAttribute('text-anchor')]),
    lines: [...s.querySelectorAll('path.line')].map(p => p.getAttribute('d')),
    marks: [...s.querySelectorAll('g.mark circle')].map(c => [+c.getAttribute('cx'), +c.getAttribute('cy')])}));
  return {title: document.title, text: clean(document.body.innerText), tables, charts, headings: [...document.querySelectorAll('h2')].map(h => clean(h.textContent))};
})()
"""

# Elements that stick out of the window, those aside that scroll inside a box of their own.
WIDER = r"""
[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') && !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))
"""
# Text without a box, under 9 pixels, or not told from its background (WCAG contrast under 3).
UNREADABLE = r"""
(() => {
  const light = c => { const v = c.match(/[\d.]+/g).slice(0, 3).map(x => (x / 255) <= 0.03928 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const page = light(getComputedStyle(document.body).backgroundColor), bad = [];
  for (const e of document.querySelectorAll('h1,h2,h3,p,th,td,li,summary,figcaption,text')) {
    if (!e.textContent.trim()) continue;
    const style = getComputedStyle(e), box = e.getBoundingClientRect(), svg = e.closest('svg');
    const scale = svg && e.tagName == 'text' ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const size = parseFloat(style.fontSize) * scale, own = light(e.tagName == 'text' ? style.fill : style.color);
    const contrast = (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05);
    if (box.width < 1 || size < 9 || contrast < 3) bad.push([e.tagName, e.textContent.slice(0, 40), box.width, size, contrast]);
  }
  return bad;
})()
"""


def number(text):
    return float(text.replace(",", "").rstrip("% "))


def check_bytes(text, value):
    n, unit = text.split()
    near(float(n) * {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit], value, 0.006 * value)


def table(page, first, **where):
    found = [t for t in page["tables"] if t["head"] and t["head"][0] == first and all(t[k] == v for k, v in where.items())]
    assert len(found) == 1, (first, where, [(t["section"], t["head"][:2]) for t in page["tables"]])
    return found[0]


def facts(page, section):
    return {r[0]: r[1] for t in page["tables"] if t["section"] == section and not t["head"] for r in t["rows"]}


def axis(ticks, anchor, at, log2=False):
    """The line through an axis's ticks: pixel -> value."""
    points = [(t[at], math.log2(number(t[0])) if log2 else number(t[0])) for t in ticks if t[3] == anchor]
    (a, va), (b, vb) = points[0], points[-1]
    assert a != b, points
    return lambda p: va + (p - a) * (vb - va) / (b - a)


def near(a, b, error):
    assert abs(a - b) <= error, (a, b, error)


def check_curves(page, metrics):
    loss = next(c for c in page["charts"] if c["section"] == "Loss")
    x, y = axis(loss["ticks"], "middle", 1), axis(loss["ticks"], "end", 2)
    points = [(float(a), float(b)) for a, b in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", loss["lines"][0])]
    assert len(points) == len(metrics)
    for (px, py), m in zip(points, metrics):
        near(x(px), m["step"], 0.1)
        near(y(py), m["loss"], 0.01)
    taken = [m for m in metrics if m.get("val_loss") is not None]
    assert len(loss["marks"]) == len(taken) > 0
    for (px, py), m in zip(loss["marks"], taken):
        near(x(px), m["step"], 0.1)
        near(y(py), m["val_loss"], 0.01)

    scale = next(c for c in page["charts"] if c["section"] == "Loss scale")
    x, y = axis(scale["ticks"], "middle", 1), axis(scale["ticks"], "end", 2, log2=True)
    begin = re.match(r"M([-\d.]+) ([-\d.]+)", scale["lines"][0])
    stairs = [(x(float(begin[1])), y(float(begin[2])))] + [(x(float(a)), y(float(b))) for a, b in re.findall(r"H([-\d.]+)V([-\d.]+)", scale["lines"][0])]
    for m in metrics:  # the last stair at or before the step holds its scale
        near([v for s, v in stairs if s <= m["step"] + 0.1][-1], math.log2(m["scale"]), 0.02)

    for first, summary, key, form in (("step", "Training loss in numbers, of single steps", "loss", "{:.4f}"), ("step", "Loss scale in numbers", "scale", "{:g}")):
        shown = table(page, first, summary=summary)["rows"]
        by_step = {m["step"]: m for m in metrics}
        assert len(shown) == 11 and int(number(shown[-1][0])) == metrics[-1]["step"], shown
        for step, value in shown:
            assert value == form.format(by_step[int(number(step))][key]), (step, value)


def share_text(share):
    percent = 100 * share
    if 0 < percent < 0.0005:
        return "under 0.001 %"
    return f"{percent:.1g} %" if 0 < percent < 0.05 else f"{percent:.1f} %"


FORMATS = {"f32": (127, -126), "bf16": (127, -126), "f16": (15, -14)}  # exponents of the largest and the smallest normal number


def underflow(r):
    if r["kind"] not in ("gradient", "activation_gradient"):
        return None
    normal = FORMATS[r["dtype"]][1]
    below = sum(n for i, n in enumerate(r.get("exponents", [])) if r["first_exponent"] + i < normal)
    return (r["zero"] + below) / r["count"]


def headroom(r):
    if "count" not in r:  # an update
        return None
    if r["inf"] or r["nan"]:
        return -math.inf
    return FORMATS[r["dtype"]][0] - (math.frexp(r["largest"])[1] - 1) if r["largest"] > 0 else None


def module_of(r):
    path = r["module"].split(".")
    digits = [i for i, p in enumerate(path) if p.isdigit()]
    if digits:
        return ".".join(path[: digits[0] + 1])
    return re.sub(r"\.(weight|bias)$", "", r["module"]) or r["op"]


def place(r):
    return r["module"] if not r.get("op") else f"{r['module']} ({r['op']})" if r["module"] else r["op"]


def check_map(shown, inspections, row, value, worse, text):
    """Every cell of a map against the raw counts of the records."""
    assert [int(number(s)) for s in shown["head"][1:]] == [i["step"] for i in inspections]
    wanted = {}
    for column, i in enumerate(inspections):
        for r in i["records"]:
            v = value(r)
            if v is not None:
                cells = wanted.setdefault(row(r), {})
                cells[column] = v if column not in cells else worse(cells[column], v)
    assert len(shown["rows"]) == len({row(r) for r in inspections[-1]["records"] if value(r) is not None}), shown["head"]
    for name, *cells in shown["rows"]:
        for column, cell in enumerate(cells):
            v = wanted[name].get(column)
            assert cell == ("" if v is None else text(v)), (name, column, cell, v)


def percent_text(v):
    return "0" if v == 0 else "<1" if v < 0.005 else f"{100 * v:.0f}"


def check_maps(page, inspections):
    maps = [t for t in page["tables"] if t["heat"]]
    assert len(maps) == 5, [m["summary"] for m in maps]
    open_maps = [m for m in maps if not m["summary"]]
    binades = lambda v: str(v) if math.isfinite(v) else "Inf"
    of_kind = lambda kind: lambda r: headroom(r) if r["kind"] == kind else None
    check_map(open_maps[0], inspections, module_of, underflow, max, percent_text)
    check_map(open_maps[1], inspections, module_of, headroom, min, binades)
    folded = {m["summary"]: m for m in maps if m["summary"]}
    check_map(folded["Underflow by tensor and step"], inspections, place, underflow, max, percent_text)
    check_map(folded["Headroom of gradients of activations, by op and step"], inspections, place, of_kind("activation_gradient"), min, binades)
    check_map(folded["Headroom of activations, by op and step"], inspections, place, of_kind("activation"), min, binades)
    assert any(underflow(r) for i in inspections for r in i["records"]), "nothing in the maps"


def check_tables(page, j):
    """The tables of worst tensors, row by row; and against the records that they were made of."""
    for first, key in (("closest to overflow", "least_headroom"), ("most lost to zero", "most_underflow"), ("updates that change nothing", "most_stalled")):
        if not j[key]:
            continue
        shown = table(page, first)
        names = ["place"] + [h.replace(" ", "_") for h in shown["head"][1:]]
        rows = [dict(zip(names, r)) for r in shown["rows"]]
        assert rows == j[key][: len(rows)] and len(rows) == min(len(j[key]), 12), (rows, j[key])
    least = min(h for i in j["inspections"] for r in i["records"] if (h := headroom(r)) is not None)
    assert j["least_headroom"][0]["binades_left"] == str(least), (j["least_headroom"][0], least)
    worst = max(u for i in j["inspections"] for r in i["records"] if (u := underflow(r)) is not None)
    near(number(j["most_underflow"][0]["zero"]) + number(j["most_underflow"][0]["subnormal"]), 100 * worst, 0.11)


def check_rest(page, j, config, metrics):
    plan, shown = config["precision"], facts(page, "Precision plan")
    assert j["precision"] == plan
    assert shown["recipe"] == plan["recipe"] and plan["autocast"] in shown["products"] and plan["weights"] in shown["weights"]
    assert f"from {plan['scaler']['init_scale']:g}" in shown["loss scale"] and str(plan["scaler"]["growth_interval"]) in shown["loss scale"]
    assert f"{plan['bytes_per_parameter']:g} bytes" in shown["a parameter"]
    for sentence in plan["stays_f32"] + plan["warnings"]:
        assert sentence in page["text"], sentence

    memory = {r[0].strip(): r[1] for r in table(page, "bytes at the peak of a step")["rows"]}
    assert j["peak_bytes"] == max(m["peak_bytes"] for m in metrics)
    check_bytes(memory["held, of all steps the most"], j["peak_bytes"])
    check_bytes(memory["planned"], sum(j["planned_bytes"].values()))
    for category, value in j["planned_bytes"].items():
        check_bytes(memory[category], value)

    skipped = [m["step"] for m in metrics if not m["applied"]]
    assert j["skipped"] == skipped and len(skipped) >= 1, "the run was to overflow"
    assert f"step{'' if len(skipped) == 1 else 's'} {', '.join(map(str, skipped))} (Inf or NaN in a gradient)" in page["text"]
    events = table(page, "step", section="Events")["rows"]
    assert [(int(number(s)), t) for s, t in events] == [(e["step"], " ".join(e["text"].split())) for e in j["events"]]
    assert (j["loss"], j["scale"]) == (metrics[-1]["loss"], metrics[-1]["scale"])


def visit(b, file, look=None):
    for name, width, height, phone, dark in WINDOWS:
        b.open(file, width, height, phone, dark)
        for folded in (True, False):
            if not folded:
                page = b.evaluate(READ)  # opens what is folded
            scroll = b.evaluate("document.documentElement.scrollWidth")
            assert scroll <= width, f"{file.name}, {name}: {scroll} pixels wide"
            assert not (wider := b.evaluate(WIDER)), f"{file.name}, {name}: {wider}"
            assert not (bad := b.evaluate(UNREADABLE)), f"{file.name}, {name}: {bad[:5]}"
        assert not b.complaints(), f"{file.name}, {name}: {b.complaints()}"
        assert b.requests() == [file.resolve().as_uri()], f"{file.name}, {name}: {b.requests()}"
        if look:
            look(page)
    return page


with tempfile.TemporaryDirectory() as directory, browser.Browser(browser.program()) as b:
    top = pathlib.Path(directory)
    (top / "text.txt").write_text(some_text())
    run = top / "run"
    mezzo("train", "--data", str(top / "text.txt"), "--out", str(run), "--model", "gpt:layers=2,heads=2,width=64", "--batch", "1", "--seq", "2", "--steps", "24",
          "--eval-steps", "8", "--eval-tokens", "400", "--lr", "3e-2", "--precision", "fp16", "--inspect", "every=4")  # a mean over two tokens times 65536 overflows
    document = mezzo("inspect", str(run), "--top", "12")
    config = json.loads((run / "config.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    def all_of_it(page):
        check_curves(page, metrics)
        check_maps(page, document["inspections"])
        check_tables(page, document)
        check_rest(page, document, config, metrics)

    inspected = visit(b, run / "inspect.html", all_of_it)

    def report(page):
        check_curves(page, metrics)
        check_maps(page, document["inspections"])
        check_tables(page, document)
        assert {"Precision plan", "Memory", "Numerics", "Settings"} <= set(page["headings"]), page["headings"]

    visit(b, run / "report.html", report)

    demo = top / "demo"
    told = mezzo("demo", "--data", str(top / "text.txt"), "--out", str(demo), "--steps", "12")

    def demonstrated(page):
        result = {r[0].strip(): r[1:] for r in table(page, "", section="Result")["rows"]}
        for i, one in enumerate(told["runs"]):
            assert result["validation loss"][i] == f"{one['val_loss']:.4f}"
            assert result["gradients lost to zero"][i] == share_text(one["zero_fraction"])
            for name, value in [("memory at the peak", one["peak_bytes"]), *one["bytes"].items()]:
                check_bytes(result[name][i], value)
        for sentence in told["findings"]:
            assert sentence in page["text"], sentence

    visit(b, demo / "index.html", demonstrated)

    # The browser does see what is wrong with a page: a script that fails, a picture from elsewhere, something too wide.
    broken = top / "broken.html"
    broken.write_text('<body style="margin:0"><img src="http://example.invalid/x.png"><script>fail()</script><div style="width:2000px">wide</div>')
    b.open(broken, 390, phone=False)
    assert len(b.requests()) == 2 and any("ReferenceError" in c or "exception" in c for c in b.complaints()), b.complaints()
    assert b.evaluate("document.documentElement.scrollWidth") == 2000

    print(f"{len(inspected['tables'])} tables and {len(inspected['charts'])} figures of inspect.html say what the JSON says, and so do report.html and the demo's page, in {len(WINDOWS)} windows")
