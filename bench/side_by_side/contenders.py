"""Contenders: each a process of its own that prints one JSON object; rounds in which all of them take turns."""

import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from peers import environment

ROOT = environment.ROOT


def shown(word):
    if not os.path.isabs(word):
        return word
    return os.path.relpath(word, ROOT) if Path(word).is_relative_to(ROOT) else os.path.basename(word)


@dataclasses.dataclass
class Contender:
    label: str
    command: list
    env: dict
    preload: str = ""
    runs: list = dataclasses.field(default_factory=list)  # one per round: the program's JSON, or None
    failure: str = ""

    @property
    def ours(self):
        return self.label.startswith("mezzo")

    def run(self, seconds):
        """One process; its JSON goes into runs. A contender that failed or took too long is not tried again."""
        self.runs.append(None if self.failure else self._output(seconds))

    def _output(self, seconds):
        try:
            done = subprocess.run(self.command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=True)
            return json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            self.failure = f"over {seconds:g} s"
        except subprocess.CalledProcessError as error:
            self.failure = (error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1]
        except json.JSONDecodeError as error:
            self.failure = f"not JSON: {error}"
        except OSError as error:
            self.failure = str(error)
        return None

    def values(self, field):
        return [run[field] for run in self.runs if run and field in run]

    def median(self, field):
        values = self.values(field)
        return statistics.median(values) if values else None

    def shell(self):
        """The command as a person would type it at the root of the repository; of what lies elsewhere, the name."""
        words = [shown(str(word)) for word in self.command]
        return (f"LD_PRELOAD={self.preload} " if self.preload else "") + shlex.join(words)


def alternate(every, rounds, seconds):
    """rounds x contenders; the order turns by one each round, so that no one always runs after the same neighbour."""
    for turn in range(rounds):
        first = turn % len(every)
        for contender in every[first:] + every[:first]:
            contender.run(seconds)
            run = contender.runs[-1]
            outcome = f"{run['step_ms_median']:10.3f} ms" if run else contender.failure
            print(f"round {turn + 1}/{rounds}  {contender.label:36} {outcome}", file=sys.stderr, flush=True)


def ratios(ours, theirs, field):
    """theirs / ours, round by round: a machine's drift touches both sides of one round alike."""
    return [b[field] / a[field] for a, b in zip(ours.runs, theirs.runs) if a and b and a.get(field)]
