"""A 2-layer GPT of GPT-2's shape: weights, one batch, logits, loss and every gradient.

Writes three files into tests/golden:
  gpt2layer.safetensors       the weights (f32), under the names a model loads; Linear weights are (out, in)
  gpt2layer_f64.safetensors   tokens, targets; logits, loss, grad.<weight>: computed in float64, stored as f32
  gpt2layer_bf16.safetensors  logits, loss, grad.<weight> under torch's CPU bf16 autocast; stored as bf16 where that is exact

Biases and norm weights are not at their usual 0 and 1, and matrices are five times GPT-2's initialisation: otherwise an error
in a bias, or in the soft-max of the scores, would hardly show.
"""

import math

import torch
import torch.nn.functional as F

from golden import distance, generator, write

SEED = 1710_03740
VOCAB, CONTEXT, LAYERS, HEADS, WIDTH = 65, 32, 2, 4, 64
B, T = 2, 32
EPS = 1e-5


def make_weights(g):
    def matrix(*shape):
        return torch.randn(*shape, generator=g) * 0.1

    w = {"wte.weight": matrix(VOCAB, WIDTH), "wpe.weight": matrix(CONTEXT, WIDTH)}

    def norm(name):
        w[f"{name}.weight"] = 1 + matrix(WIDTH)
        w[f"{name}.bias"] = matrix(WIDTH)

    def linear(name, n_in, n_out):
        w[f"{name}.weight"] = matrix(n_out, n_in)
        w[f"{name}.bias"] = matrix(n_out)

    for layer in range(LAYERS):
        h = f"h.{layer}"
        norm(f"{h}.ln_1")
        linear(f"{h}.attn.c_attn", WIDTH, 3 * WIDTH)
        linear(f"{h}.attn.c_proj", WIDTH, WIDTH)
        norm(f"{h}.ln_2")
        linear(f"{h}.mlp.c_fc", WIDTH, 4 * WIDTH)
        linear(f"{h}.mlp.c_proj", 4 * WIDTH, WIDTH)
    norm("ln_f")
    return w


def forward(w, tokens):
    """Logits (B, T, VOCAB). The soft-max of the scores is written out, so that float64 is float64 all the way."""

    def norm(x, name):
        return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def heads(x):  # (B, T, C) -> (B, H, T, D)
        return x.view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2)

    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    x = w["wte.weight"][tokens] + w["wpe.weight"][:T]
    for layer in range(LAYERS):
        h = f"h.{layer}"
        q, k, v = map(heads, linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").split(WIDTH, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        y = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ v
        x = x + linear(y.transpose(1, 2).reshape(B, T, WIDTH), f"{h}.attn.c_proj")
        up = F.gelu(linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc"), approximate="tanh")
        x = x + linear(up, f"{h}.mlp.c_proj")
    return F.linear(norm(x, "ln_f"), w["wte.weight"])  # the head is tied, without bias


def run(weights, tokens, targets, dtype, autocast=False):
    w = {name: t.clone().to(dtype).requires_grad_() for name, t in weights.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = forward(w, tokens)
        loss = F.cross_entropy(logits.view(-1, VOCAB), targets.view(-1))
    loss.backward()
    return {"logits": logits.detach(), "loss": loss.detach(), **{f"grad.{name}": t.grad for name, t in w.items()}}


def narrowest(t):
    """bf16 if that loses nothing."""
    low = t.to(torch.bfloat16)
    return low if torch.equal(low.to(t.dtype), t) else t


def main():
    g = generator(SEED)
    weights = make_weights(g)
    tokens = torch.randint(0, VOCAB, (B, T), generator=g)
    targets = torch.randint(0, VOCAB, (B, T), generator=g)

    exact = run(weights, tokens, targets, torch.float64)
    f32 = run(weights, tokens, targets, torch.float32)
    bf16 = run(weights, tokens, targets, torch.float32, autocast=True)
    shape = {"vocab": VOCAB, "context": CONTEXT, "layers": LAYERS, "heads": HEADS, "width": WIDTH, "norm_eps": EPS}

    write("gpt2layer", weights, __file__, SEED, model=shape)
    write("gpt2layer_f64", {"tokens": tokens, "targets": targets, **{n: t.float() for n, t in exact.items()}}, __file__, SEED,
          model=shape, computed="float64, stored as float32",
          torch_f32_distance={n: float(f"{distance(t, exact[n]):.2e}") for n, t in f32.items()})
    write("gpt2layer_bf16", {n: narrowest(t) for n, t in bf16.items()}, __file__, SEED,
          model=shape, computed="torch.autocast('cpu', bfloat16) on float32 weights",
          torch_bf16_distance={n: float(f"{distance(t, exact[n]):.2e}") for n, t in bf16.items()})
    print(f"loss {exact['loss'].item():.6f}; distance from float64: "
          f"f32 {max(distance(t, exact[n]) for n, t in f32.items()):.1e}, "
          f"bf16 {max(distance(t, exact[n]) for n, t in bf16.items()):.1e}")


if __name__ == "__main__":
    main()
