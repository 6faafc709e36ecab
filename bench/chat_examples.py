#!/usr/bin/env python3
"""Real conversations of mixed length: the questions and answers of Perl's FAQ (Debian's package perl-doc), as chat JSONL.

  bench/chat_examples.py TRAIN.jsonl HELD_OUT.jsonl [--count 200] [--paragraphs N]

The answers have 41 to 5,139 characters, half of them fewer than 770. --paragraphs keeps
the first N of each. TRAIN gets `count` of them, in an order that is always the same; HELD_OUT the rest.
"""
import argparse
import glob
import json
import random
import re
import sys


def plain(pod):
    """The text of a piece of POD, without its commands and formatting codes."""
    pod = re.sub(r"^=(over|item|back|head3|begin|end|for|encoding|cut)\b[^\n]*\n", "", pod, flags=re.M)
    for _ in range(3):  # codes nest
        pod = re.sub(r"[XZ]<[^<>]*>", "", pod)
        pod = re.sub(r"[BCIFLS]<<+ (.*?) >>+", r"\1", pod, flags=re.S)
        pod = re.sub(r"[BCIFLS]<([^<>]*)>", r"\1", pod)
    for name, c in (("lt", "<"), ("gt", ">"), ("verbar", "|"), ("sol", "/")):
        pod = pod.replace(f"E<{name}>", c)
    return re.sub(r"\n{3,}", "\n\n", pod).strip()


def examples(paragraphs):
    files = sorted(glob.glob("/usr/share/perl/5.*.*/pod/perlfaq[1-9].pod"))
    if not files:
        sys.exit("no perlfaq*.pod here: apt-get install perl-doc")
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as f:
            text = f.read()
        for question, answer in re.findall(r"^=head2 ([^\n]+)\n(.*?)(?=^=head[12] |\Z)", text, flags=re.M | re.S):
            question, answer = plain(question), plain(answer)
            if paragraphs:
                answer = "\n\n".join(answer.split("\n\n")[:paragraphs])
            if len(answer) >= 40:
                yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("train")
    p.add_argument("held_out")
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--paragraphs", type=int, default=0)
    o = p.parse_args()
    found = list(examples(o.paragraphs))
    random.Random(0).shuffle(found)
    for name, part in ((o.train, found[:o.count]), (o.held_out, found[o.count:])):
        with open(name, "w") as f:
            for e in part:
                f.write(json.dumps(e) + "\n")
    lengths = sorted(len(e["messages"][1]["content"]) for e in found)
    print(f"{len(found)} conversations; characters of an answer: {lengths[0]}, median {lengths[len(lengths) // 2]}, {lengths[-1]}")


if __name__ == "__main__":
    main()
