"""torch.nn.MultiheadAttention (batch_first) in float64: outputs and gradients, its packed projection split into three.

Writes tests/golden/attention.safetensors: <case>.query, and .key and .value where they are not the query; .mask; .weight.<mezzo's name>, .y, .dy,
.grad.query, .grad.key, .grad.value, .grad.weight.<name>. A boolean mask is true where a query may look, the opposite of torch's; `keys` is one of
whole keys, (B, 1, 1, Tk). Metadata `cases`: each module's options.
"""

import torch

from golden import generator, write

SEED = 6
B, TQ, TK, DIM, HEADS = 2, 4, 5, 6, 3
CASES = {
    "self": {},
    "no_bias": {"bias": False},
    "causal": {"causal": True},
    "added": {"mask": "added"},
    "pairs": {"mask": "pairs"},
    "cross": {"cross": True},
    "cross_keys": {"cross": True, "mask": "keys"},
}


def split(tensors, prefix, module, of):
    """module's parameters, or what `of` makes of them, under mezzo's names."""
    for kind in ("weight", "bias"):
        packed = getattr(module, f"in_proj_{kind}")
        if packed is None:
            continue
        for name, part in zip("qkv", of(packed).chunk(3)):
            tensors[f"{prefix}.{name}_proj.{kind}"] = part
        tensors[f"{prefix}.out_proj.{kind}"] = of(getattr(module.out_proj, kind))


def main():
    g = generator(SEED)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)
    tensors = {}
    for case, o in CASES.items():
        module = torch.nn.MultiheadAttention(DIM, HEADS, bias=o.get("bias", True), batch_first=True, dtype=torch.float64)
        for p in module.parameters():
            p.data = 0.5 * draw(*p.shape)
        inputs = {"query": draw(B, TQ, DIM).requires_grad_()}
        if o.get("cross"):
            inputs |= {name: draw(B, TK, DIM).requires_grad_() for name in ("key", "value")}
        tk = TK if o.get("cross") else TQ
        masks = {}
        if o.get("causal"):
            masks["attn_mask"] = torch.ones(TQ, tk, dtype=torch.bool).triu(1)
        elif o.get("mask") == "added":
            tensors[f"{case}.mask"] = masks["attn_mask"] = draw(TQ, tk)
        elif o.get("mask") == "pairs":
            masks["attn_mask"] = torch.rand(TQ, tk, generator=g) < 0.4
            masks["attn_mask"][:, 1] = False
            tensors[f"{case}.mask"] = ~masks["attn_mask"]
        elif o.get("mask") == "keys":
            masks["key_padding_mask"] = torch.arange(tk) >= torch.tensor([[tk - 2], [tk]])
            tensors[f"{case}.mask"] = ~masks["key_padding_mask"].reshape(B, 1, 1, tk)
        query = inputs["query"]
        y, _ = module(query, inputs.get("key", query), inputs.get("value", query), need_weights=False, **masks)
        dy = draw(*y.shape)
        y.backward(dy)
        tensors |= {f"{case}.y": y, f"{case}.dy": dy}
        for name, t in inputs.items():
            tensors |= {f"{case}.{name}": t, f"{case}.grad.{name}": t.grad}
        split(tensors, f"{case}.weight", module, lambda p: p)
        split(tensors, f"{case}.grad.weight", module, lambda p: p.grad)
    cases = {case: {"dim": DIM, "heads": HEADS, "bias": o.get("bias", True), "causal": o.get("causal", False)} for case, o in CASES.items()}
    write("attention", tensors, __file__, SEED, cases=cases)


if __name__ == "__main__":
    main()
