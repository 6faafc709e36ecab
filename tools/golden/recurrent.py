"""Recurrent layers of torch.nn in float64: outputs, last states and gradients.

Writes tests/golden/recurrent.safetensors: <layer>.x, .h, .c (the LSTM's), .weight.<torch's name>, .y, .last_h, .last_c, .dy, .grad.x,
.grad.h, .grad.c, .grad.weight.<name>. The gradients are those of sum(y dy) + sum(last states). Metadata `layers`: each layer's options.
"""

import torch

from golden import generator, write

SEED = 5
LAYERS = {
    "lstm": {"in": 3, "hidden": 4, "layers": 2, "bidirectional": True, "batch_first": True},
    "lstm_plain": {"in": 3, "hidden": 4, "layers": 1, "bias": False},
    "gru": {"in": 3, "hidden": 4, "layers": 2, "bidirectional": True},
    "rnn": {"in": 2, "hidden": 5, "layers": 2, "batch_first": True},
    "rnn_relu": {"in": 2, "hidden": 5, "layers": 1, "bidirectional": True, "relu": True},
}


def main():
    g = generator(SEED)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)
    tensors = {}
    for name, options in LAYERS.items():
        kind = name.split("_")[0]
        o = dict(options)
        make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[kind]
        layer = make(o.pop("in"), o.pop("hidden"), o.pop("layers"), **({"nonlinearity": "relu"} if o.pop("relu", False) else {}), **o).double()
        for p in layer.parameters():
            p.data = 0.5 * draw(*p.shape)
        t, b = 5, 2
        x = draw(*((b, t) if options.get("batch_first") else (t, b)), options["in"]).requires_grad_()
        places = options["layers"] * (2 if options.get("bidirectional") else 1)
        states = [draw(places, b, options["hidden"]).requires_grad_() for _ in range(2 if kind == "lstm" else 1)]
        y, last = layer(x, tuple(states) if kind == "lstm" else states[0])
        last = list(last) if kind == "lstm" else [last]
        dy = draw(*y.shape)
        ((y * dy).sum() + sum(s.sum() for s in last)).backward()
        tensors |= {f"{name}.x": x, f"{name}.y": y, f"{name}.dy": dy, f"{name}.grad.x": x.grad}
        for label, first, end in zip("hc", states, last):
            tensors |= {f"{name}.{label}": first, f"{name}.last_{label}": end, f"{name}.grad.{label}": first.grad}
        for label, p in layer.named_parameters():
            tensors |= {f"{name}.weight.{label}": p, f"{name}.grad.weight.{label}": p.grad}
    write("recurrent", tensors, __file__, SEED, layers=LAYERS)


if __name__ == "__main__":
    main()
