"""transformers' and PEFT's side of fine-tuning on conversations: one pass over the examples with LoRA (r = 16 on all seven projections) under bf16
autocast, each batch padded to its longest example, loss on the assistant's tokens. Prints one JSON object.

  chat_peft.py MODEL_DIRECTORY TRAIN.jsonl [--batch 4] [--seq 1024] [--epochs 1] [--held-out FILE] [--precision bf16]
"""
import argparse
import contextlib
import json
import random
import resource
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def encode(tokenizer, messages, seq):
    """Ids, and the labels: those of the last turn, which is the assistant's."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    before = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    ids = tokenizer(text, add_special_tokens=False).input_ids[:seq]
    return ids, [-100] * min(before, seq) + ids[before:]


def padded(batch, pad):
    longest = max(len(ids) for ids, _ in batch)
    fill = lambda rows, value: torch.tensor([row + [value] * (longest - len(row)) for row in rows])
    return {"input_ids": fill([ids for ids, _ in batch], pad), "labels": fill([labels for _, labels in batch], -100),
            "attention_mask": fill([[1] * len(ids) for ids, _ in batch], 0)}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("train")
    p.add_argument("--held-out")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--seq", type=int, default=1024)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--lr", type=float, default=2e-4)
    p.add_argument("--steps", type=int, default=0, help="at most; 0: the whole pass")
    p.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    p.add_argument("--threads", type=int, default=2)
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(o.model)
    model = AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=PROJECTIONS))
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=o.lr, fused=True)
    autocast = (lambda: torch.autocast("cpu", dtype=torch.bfloat16)) if o.precision == "bf16" else contextlib.nullcontext
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    read = lambda path: [encode(tokenizer, json.loads(line)["messages"], o.seq) for line in open(path)]
    data = read(o.train)

    def held_out_loss():
        total = count = 0
        model.eval()
        with torch.no_grad(), autocast():
            for e in read(o.held_out):
                n = sum(l != -100 for l in e[1][1:])
                total += model(**padded([e], pad)).loss.item() * n
                count += n
        model.train()
        return total / count

    result = {"held_out_before": held_out_loss()} if o.held_out else {}
    times, examples, tokens, losses = [], 0, 0, []
    order = random.Random(0)
    for _ in range(o.epochs):
        order.shuffle(data)
        for i in range(0, len(data), o.batch):
            if o.steps and len(times) == o.steps:
                break
            rows = data[i:i + o.batch]
            begin = time.perf_counter()
            optimizer.zero_grad()
            with autocast():
                loss = model(**padded(rows, pad)).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            times.append(time.perf_counter() - begin)
            examples += len(rows)
            tokens += sum(len(ids) for ids, _ in rows)
    if o.held_out:
        result["held_out_after"] = held_out_loss()
    result.update(examples_per_second=examples / sum(times), tokens_per_second=tokens / sum(times), examples=examples, tokens=tokens,
                  seconds=sum(times), peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
