#!/usr/bin/env python3
"""The comparison itself, tried out: verdicts on figures made up here, the chart, the markers; and one toy row, with PyTorch where it is installed."""

import argparse
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import plan_grid  # noqa: E402
from peers import environment  # noqa: E402
from side_by_side import chart, report, rows  # noqa: E402
from side_by_side.contenders import ROOT, Contender  # noqa: E402


def ran(label, *ms, rss=1000):
    runs = [{"step_ms_median": x, "peak_rss_bytes": rss, "tokens_per_second": 1, "minor_faults_per_step": 0} if x else None for x in ms]
    return Contender(label, [], {}, runs=runs)


class Verdicts(unittest.TestCase):
    every = [ran("mezzo bf16", 100, 110, 90, rss=400), ran("PyTorch bf16 eager", 160, 170, 150), ran("PyTorch bf16 compile", 150, 150, 150)]

    def judge(self, target):
        what, each = report.outcome(target, self.every)
        return what, each, report.verdict(target, sorted(each)[len(each) // 2]) if each else ""

    def test_the_peer_that_is_hardest_to_beat_counts(self):
        what, each, verdict = self.judge(rows.faster("bf16", ("PyTorch bf16 eager", "PyTorch bf16 compile"), 1.4, 1.6))
        self.assertIn("compile", what)
        self.assertEqual(each, [1.5, 150 / 110, 150 / 90])
        self.assertEqual(verdict, "met")

    def test_speed_is_missed_met_or_better(self):
        for must, aim, wanted in ((1.7, 2.0, "**missed**"), (1.5, 2.0, "met"), (1.2, 1.5, "aim reached")):
            self.assertEqual(self.judge(rows.faster("bf16", "PyTorch bf16 eager", must, aim))[2], wanted)

    def test_memory_and_faults_are_bounds_from_above(self):
        self.assertEqual(self.judge(rows.smaller("bf16", "PyTorch bf16 eager", 0.5, 0.4))[1:], ([0.4] * 3, "aim reached"))
        self.assertEqual(self.judge(rows.smaller("bf16", "PyTorch bf16 eager", 0.3, 0.2))[2], "**missed**")
        self.assertEqual(self.judge(rows.alone("bf16", "minor_faults_per_step", 0, 0))[2], "aim reached")

    def test_a_side_that_did_not_run_is_not_measured(self):
        self.assertEqual(self.judge(rows.faster("bf16", "PyTorch fp16 eager", 1, 1))[1], [])
        row = rows.GptRow("", 1, 1, 1, 1, 1, 1, 1, (), (), targets=(rows.faster("fp16", "PyTorch fp32 eager", 1, 1),))
        self.assertIn("not measured", report.targets(row, self.every))

    def test_every_target_names_contenders_of_its_row(self):
        for name, row in rows.ROWS.items():
            labels = {f"mezzo {r}" for r in row.own} | {f"PyTorch {p} {m}{a}" for p, m in row.peers for a in row.allocators}
            for target in row.targets:
                self.assertLessEqual({target.ours, *target.theirs}, labels, name)


class Writing(unittest.TestCase):
    def test_the_chart_is_well_formed(self):
        for largest in (0.05, 1, 7, 99, 1404, 6390):
            xml.dom.minidom.parseString(chart.bars("a < b", "ms", [("x & y", largest / 2, largest / 3, largest, True), ("z", largest, largest, largest, False)]))
            marks = chart.ticks(largest)
            self.assertTrue(4 < len(marks) < 12 and marks[-1] >= largest, marks)

    def test_only_what_is_between_the_markers_changes(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "RESULTS.md"
            page.write_text("# Results\n\nby hand\n")
            report.write("a", "one\n", page)
            report.write("b", "two\n", page)
            page.write_text(page.read_text() + "after\n")
            report.write("a", "three\n", page)
            text = page.read_text()
            for part in ("by hand", "three", "two", "after"):
                self.assertEqual(text.count(part), 1)
            self.assertNotIn("one", text)


class PlanGrid(unittest.TestCase):
    def test_what_is_far_off_is_marked_and_counted(self):
        row = {"row": "a", "planning_seconds": 1, "planned_bytes": 100, "bytes": 100, "planned_ms": 10, "ms": 10}
        text = plan_grid.table([row, {**row, "row": "b", "planned_ms": 13}, {**row, "row": "c", "planned_bytes": 110}])
        self.assertIn("| a | 0.0 MiB, 1.000 | 10 | 10 | 1.00 |", text)
        self.assertIn("**1.30**", text)
        self.assertIn("3 rows: bytes off by more than 5% in 1; time by more than 25% in 1;", text)

    def test_a_row_runs(self):
        done = subprocess.run([sys.executable, "bench/plan_grid.py", "--only", "2x64, B 4, T 64, bf16$", "--steps", "2"], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 rows: bytes off by more than 5% in 0;", done.stdout)


class Toy(unittest.TestCase):
    venv = None

    def test_a_toy_row_runs(self):
        command = [sys.executable, "bench/compare.py", "--rows", "toy", "--quick", "--no-write"]
        folder = Path(self.venv or environment.VENV)
        if (folder / "bin" / "python").exists():
            command += ["--venv", str(folder)]
        else:
            print("no PyTorch: mezzo alone", file=sys.stderr)
            command += ["--own-only"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("### toy", done.stdout)
        self.assertNotIn("exit ", done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", metavar="DIR", help="with PyTorch; else the one under build/, if it is there")
    known, rest = parser.parse_known_args()
    Toy.venv = known.venv
    unittest.main(argv=[sys.argv[0], *rest])
