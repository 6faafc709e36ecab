"""SmolLM2-135M-Instruct in mezzo, in transformers and in llama.cpp: token ids, logits, greedy continuations, exported files.

    tools/oracles/setup.sh build/oracles            # a virtual environment; builds llama.cpp, some minutes
    build/oracles/bin/python tools/oracles/check_real_model.py [--speed]

Prints a table and leaves with 1 where a figure misses what is wanted. `./dev test full` runs it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # read by what is imported next

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW, WINDOWS, NEW = 256, 12, 64
TEXTS = ("README.md", "docs/finetune.md", "docs/precision-recipes.md", "docs/numerics.md")
# Type, and by how much the perplexity may differ from ours on the same file: transformers, llama.cpp (which quantises activations too).
EXPORTS = (("f32", 2e-3, 2e-3), ("f16", 2e-3, 2e-3), ("bf16", 2e-3, 2e-3), ("q8_0", 2e-3, 1e-2), ("q4_0", 2e-3, 1e-2))


class Table:
    def __init__(self):
        self.rows, self.failed = [], 0

    def add(self, what, figure, wanted, good):
        self.rows.append((what, figure, wanted, "yes" if good else "**NO**"))
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'}  {what}: {figure} (wanted {wanted})", file=sys.stderr, flush=True)

    def show(self):
        lines = [("", "figure", "wanted", "")] + self.rows
        for i, row in enumerate(lines):
            print("| " + " | ".join(row) + " |")
            if i == 0:
                print("|---" * len(row) + "|")


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{command[0]} left with {done.returncode}")
    return done.stdout


def llama(args, **job):
    done = subprocess.run([args.llama_python, str(HERE / "llama_oracle.py")], input=json.dumps({**job, "threads": args.threads}), text=True,
                          stdout=subprocess.PIPE, env={k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"})
    if done.returncode != 0:
        sys.exit("the oracle of llama.cpp failed")
    return json.loads(done.stdout)


def transformers_model(folder, name):
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # continuations are as long as asked for
    return model


@torch.no_grad()
def transformers_loss(model, ids):
    total = 0.0
    for begin in range(0, len(ids) - WINDOW, WINDOW):
        piece = torch.tensor([ids[begin : begin + WINDOW + 1]])
        total += F.cross_entropy(model(input_ids=piece[:, :-1]).logits[0].double(), piece[0, 1:], reduction="sum").item()
    return total / (len(range(0, len(ids) - WINDOW, WINDOW)) * WINDOW)


@torch.no_grad()
def transformers_greedy(model, prompt):
    out = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    return out[0, len(prompt) :].tolist()


def equal(table, what, ours, theirs):
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    table.add(what, f"{same} of {len(ours)}", "all", same == len(ours))


def check_text(args, table, work):
    """Token ids of 2,000 lines; logits; greedy continuations."""
    lines = (ROOT / "tests/golden/mixed_text.txt").read_bytes().decode().split("\n")[:2000]
    with safe_open(ROOT / "tests/golden/smollm2.safetensors", "pt") as golden:  # prompts that rounding does not decide
        prompts = [p["text"] for p in json.loads(golden.metadata()["prompts"])]
    (work / "lines").write_bytes(("\n".join(lines) + "\n").encode())
    (work / "prompts").write_bytes("".join(p.replace("\n", "\u2424") + "\n" for p in prompts).encode())
    run(args.probe, args.model, work / "lines", work / "prompts", work / "probe.safetensors")
    ours = load_file(work / "probe.safetensors")
    all_ids, ends = ours["ids"].tolist(), [0] + ours["ends"].tolist()
    ids = [all_ids[a:b] for a, b in zip(ends, ends[1:])]
    texts = [line.replace("\u2424", "\n") for line in lines]
    prompt_ids = [ours[f"prompt.{i}"].tolist() for i in range(len(prompts))]
    continued = [ours[f"continued.{i}"].tolist() for i in range(len(prompts))]

    equal(table, "token ids of 2,000 mixed lines, llama.cpp", ids, llama(args, model=str(args.model), lines=texts)["ids"])
    # A GGUF file does not say all of its tokenizer to transformers (digits); the tokenizer.json that mezzo writes of it does.
    run(args.mezzo, "export", "--model", args.model, "--format", "safetensors", "--type", "bf16", "--out", work / "hf", "--json")
    tokenizer = AutoTokenizer.from_pretrained(work / "hf")
    equal(table, "token ids of 2,000 mixed lines, transformers", ids, [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts])

    model = transformers_model(args.model.parent, args.model.name)
    with torch.no_grad():
        worst = max((model(input_ids=torch.tensor([prompt_ids[i]])).logits[0] - ours[f"logits.{i}"]).abs().max().item() for i in range(6))
    table.add("logits in f32, largest difference, transformers", f"{worst:.1e}", "1e-3", worst < 1e-3)
    equal(table, "64 greedy tokens of 20 prompts, transformers", continued, [transformers_greedy(model, p) for p in prompt_ids])
    return prompt_ids, continued


def check_exports(args, table, work, prompt_ids, continued):
    text = "".join((ROOT / name).read_text() for name in TEXTS)
    (work / "text").write_text(text)
    (work / "none").write_text("")
    (work / "whole").write_text(text.replace("\n", "\u2424") + "\n")
    run(args.probe, args.model, work / "whole", work / "none", work / "ids.safetensors")
    ids = load_file(work / "ids.safetensors")["ids"].tolist()[: WINDOW * WINDOWS + 1]
    tokenizer = AutoTokenizer.from_pretrained(work / "hf")
    (work / "text").write_text(tokenizer.decode(ids))  # so much of it as all three read
    for kind, of_transformers, of_llama in EXPORTS:
        file = work / f"{kind}.gguf"
        run(args.mezzo, "export", "--model", args.model, "--format", "gguf", "--type", kind, "--out", file, "--json")
        measured = json.loads(run(args.mezzo, "eval", "--model", file, "--data", work / "text", "--seq", WINDOW, "--precision", "fp32", "--json"))
        if measured["tokens"] != WINDOW * WINDOWS:
            sys.exit(f"mezzo eval saw {measured['tokens']} tokens, not {WINDOW * WINDOWS}")
        model = transformers_model(work, file.name)
        job = {"model": str(file), "ids": ids, "window": WINDOW}
        answer = llama(args, **job, **({"prompts": prompt_ids} if kind == "f32" else {}))
        if kind == "f32":
            equal(table, "64 greedy tokens of 20 prompts, llama.cpp on the F32 export", continued, answer["continued"])
        for name, theirs, bound in (("transformers", transformers_loss(model, ids), of_transformers), ("llama.cpp", answer["loss"], of_llama)):
            apart = math.exp(theirs - measured["loss"]) - 1
            table.add(f"exported {kind.upper()}, perplexity {measured['perplexity']:.4f}, {name}", f"{100 * apart:+.3f} %", f"{100 * bound:.1f} %",
                      abs(apart) <= bound)
        del model
        file.unlink()


def check_speed(args, table, prompt):
    text = "Once upon a time, in a village by the sea,"
    ours = sorted(json.loads(run(args.mezzo, "generate", "--model", args.model, "--prompt", text, "--max-tokens", NEW, "--temperature", "0",
                                 "--threads", args.threads, "--json"))["tokens_per_second"] for _ in range(3))[1]
    theirs = llama(args, model=str(args.model), speed=prompt)["tokens_per_second"]
    table.add(f"tokens a second in Q4_1, over llama.cpp's {theirs:.0f}", f"{ours / theirs:.2f}", "0.5", ours >= theirs / 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mezzo", type=Path, default=ROOT / "build/release/mezzo")
    parser.add_argument("--probe", type=Path, default=ROOT / "build/release/oracle_probe")
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("MEZZO_MODELS", ROOT / "build/models")) / NAME)
    parser.add_argument("--llama-python", default=sys.executable, help="the Python that has llama-cpp-python")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--speed", action="store_true", help="tokens a second as well: on a quiet machine")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prompt_ids, continued = check_text(args, table, work)
        check_exports(args, table, work, prompt_ids, continued)
        if args.speed:
            check_speed(args, table, prompt_ids[1])
    table.show()
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
