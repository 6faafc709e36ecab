"""PyTorch's side of the comparison: times whole training steps of a GPT on the CPU and prints one JSON object.

A step is what a user of torch.amp writes: zero_grad, forward under autocast, cross-entropy, backward (scaled in fp16), fused AdamW,
scaler.update, loss.item(). The model has GPT-2's shape, as mezzo's `gpt:` models: learned positions, pre-norm, tanh GELU, biases, tied head.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

WARM_UP = 2  # first touch of memory, and compilation
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resident_bytes(field):
    """VmRSS (now) or VmHWM (peak) of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x):  # (B, T, C)
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    def __init__(self, vocab, context, layers, heads, width):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):  # (B, T) each; the mean loss
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for size in ("layers", "heads", "width", "vocab", "context", "batch", "seq"):
        parser.add_argument(f"--{size}", type=int, required=True)
    parser.add_argument("--precision", choices=AUTOCAST, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=8, help=f"timed steps, after {WARM_UP} untimed ones")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    at_start = resident_bytes("VmRSS")
    model = Gpt(args.vocab, args.context, args.layers, args.heads, args.width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=args.precision == "fp16")
    loss_of = torch.compile(model) if args.compile else model
    tokens = torch.randint(args.vocab, (args.batch, args.seq))
    targets = torch.randint(args.vocab, (args.batch, args.seq))
    low = AUTOCAST[args.precision]

    times = []
    for _ in range(WARM_UP + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=low or torch.bfloat16, enabled=low is not None):
            loss = loss_of(tokens, targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        value = loss.item()
        times.append(1e3 * (time.perf_counter() - start))

    median = statistics.median(times[WARM_UP:])
    print(json.dumps({
        "torch": torch.__version__, "threads": args.threads, "parameters": sum(p.numel() for p in model.parameters()), "loss": value,
        "step_ms": times[WARM_UP:], "step_ms_median": median, "tokens_per_second": 1e3 * args.batch * args.seq / median,
        "startup_rss_bytes": at_start, "peak_rss_bytes": resident_bytes("VmHWM"),
    }))


if __name__ == "__main__":
    main()
