"""A real model, as Hugging Face's transformers computes it in float32: SmolLM2-135M-Instruct, dequantised from the GGUF file that ./dev model fetches.

Writes tests/golden/smollm2.safetensors. Metadata `prompts` (JSON): for each prompt its text, its token ids, and the 64 ids that greedy decoding
continues it with; `margin` is the smallest distance between the two largest logits on the way (prompts where rounding could decide are left out).
Metadata `chat`: the same for messages put into the model's chat template, up to the end of the answer. `logits.<i>`: of every position of prompt i,
every 128th id, f32. `tokens`: the first 513 ids of the text in metadata `text`; `loss`: the mean over the last 512 of them, f64.
"""

import argparse

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from golden import write

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEW, STRIDE, MARGIN = 64, 128, 2e-3
TEXT = "tests/golden/mixed_text.txt"
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Water boils at a temperature of",
    "The three laws of thermodynamics are",
    "#include <vector>\n\nint main() {\n",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 2, 4, 8, 16,",
    "Photosynthesis is the process by which",
    "In 1969, two astronauts",
    "La capitale de l'Italie est",
    "Ein kleiner Hund lief",
    "SELECT name, age FROM people WHERE",
    "The recipe needs flour, sugar and",
    "Mixed precision training stores",
    "Q: What is the largest planet?\nA:",
    "\"I never said that,\" she",
    "A prime number is",
    "The old lighthouse keeper climbed the stairs and",
    "To sort a list in Python,",
    "My favourite season is autumn because",
    "Shakespeare wrote",
    "An electron has a charge of",
    "The river flows from the mountains to",
    "Yesterday all my troubles",
    "Bread rises because",
    "The derivative of x squared is",
    "History repeats itself,",
    "Il était une fois",
    "The moon orbits",
]
WANTED = 20
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "You answer in one short sentence."}, {"role": "user", "content": "Why is the sky blue?"}],
    [{"role": "user", "content": "Count to five."}, {"role": "assistant", "content": "1, 2, 3, 4, 5."}, {"role": "user", "content": "And backwards?"}],
]


@torch.no_grad()
def greedy(model, ids, most, end=None):
    """The continuation, and the smallest distance between the two likeliest tokens."""
    ids = list(ids)
    start, margin, cache, step = len(ids), float("inf"), None, torch.tensor([ids])
    while len(ids) - start < most:
        out = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        two = out.logits[0, -1].topk(2)
        margin = min(margin, (two.values[0] - two.values[1]).item())
        ids.append(two.indices[0].item())
        step = torch.tensor([ids[-1:]])
        if ids[-1] == end:
            break
    return ids[start:], margin


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="build/models", help="where the GGUF file is")
    folder = parser.parse_args().folder
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=NAME)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=NAME, dtype=torch.float32).eval()
    out, prompts, chats = {}, [], []
    for text in PROMPTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        continued, margin = greedy(model, ids, NEW)
        print(f"{margin:8.4f} {text!r}: {tokenizer.decode(continued)!r}")
        if margin < MARGIN or len(prompts) == WANTED:
            continue
        if len(prompts) < 6:
            out[f"logits.{len(prompts)}"] = model(input_ids=torch.tensor([ids])).logits[0, :, ::STRIDE]
        prompts.append({"text": text, "ids": ids, "continued": continued, "margin": margin})
    assert len(prompts) == WANTED, f"only {len(prompts)} prompts decide clearly"
    for messages in CHATS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer, margin = greedy(model, ids, 200, tokenizer.eos_token_id)
        print(f"{margin:8.4f} {text!r}: {tokenizer.decode(answer)!r}")
        assert margin > MARGIN / 4, "rounding could decide this answer"
        chats.append({"messages": messages, "text": text, "ids": ids, "answer": answer, "margin": margin})
    with open(TEXT, newline="") as file:  # (transformers knows no splitting of digits here: not the ids of the real tokenizer)
        ids = tokenizer(file.read()[:4000], add_special_tokens=False)["input_ids"][:513]
    out["tokens"] = torch.tensor(ids)
    logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0]
    out["loss"] = F.cross_entropy(logits.double(), torch.tensor(ids[1:]))
    print("loss", out["loss"].item())
    import transformers
    write("smollm2", out, __file__, None, prompts=prompts, chat=chats, text=TEXT, model=NAME, transformers=transformers.__version__)


if __name__ == "__main__":
    main()
