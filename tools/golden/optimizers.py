"""Five steps of SGD, Adam, AdamW, Adagrad, Lion and Adafactor on two small parameters.

Writes tests/golden/optimizers.safetensors:
  init.<param>, grad.<param>    where every case starts, and the five gradients, one a row: (5, ...)
  <case>.<param>                the parameter after each step (5, ...), f32 as torch computes it
  <case>.<param>.<state>        momentum_buffer; exp_avg, exp_avg_sq; sum; row_var, col_var, variance, likewise
  <case>.f64.<param>[.<state>]  the same trajectory from the same f32 start and gradients, in float64
Metadata "cases": {case: {"op": sgd|adam|adamw|adagrad|lion|adafactor, options by torch's names}}.
Lion is not in torch: it is written here from program 1 of its paper.
"""

import torch

from golden import distance, generator, write

SEED = 20
STEPS = 5
CASES = {
    "sgd.plain": {"op": "sgd", "lr": 0.1},
    "sgd.decay": {"op": "sgd", "lr": 0.1, "weight_decay": 0.01},
    "sgd.momentum": {"op": "sgd", "lr": 0.1, "momentum": 0.9},
    "sgd.nesterov": {"op": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    "sgd.nesterov_decay": {"op": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam.default": {"op": "adam", "lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8},
    "adam.decay": {"op": "adam", "lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1},
    "adamw.default": {"op": "adamw", "lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    "adamw.gpt": {"op": "adamw", "lr": 6e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1},
    "adagrad.default": {"op": "adagrad", "lr": 1e-2},
    "adagrad.all": {"op": "adagrad", "lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-6},
    "lion.default": {"op": "lion", "lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.0},
    "lion.decay": {"op": "lion", "lr": 1e-3, "betas": (0.95, 0.98), "weight_decay": 0.5},
    "adafactor.default": {"op": "adafactor", "lr": 1e-2},
    "adafactor.all": {"op": "adafactor", "lr": 0.3, "beta2_decay": -0.6, "eps": (1e-6, 1e-2), "d": 1.5, "weight_decay": 0.1},
    "adamw.large_eps": {"op": "adamw", "lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-3, "weight_decay": 0.0},
}
STATES = ("momentum_buffer", "exp_avg", "exp_avg_sq", "sum", "row_var", "col_var", "variance")


class Lion(torch.optim.Optimizer):
    """Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675, program 1."""

    def __init__(self, params, foreach, **options):
        super().__init__(params, options)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (beta1, beta2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                update = (m * beta1 + p.grad * (1 - beta1)).sign()
                p.copy_(p * (1 - lr * group["weight_decay"]) - lr * update)
                m.copy_(m * beta2 + p.grad * (1 - beta2))


CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad, "lion": Lion,
           "adafactor": torch.optim.Adafactor}
HAVE_FUSED = ("sgd", "adam", "adamw", "adagrad")


def trajectory(options, start, gradients, dtype):
    """{"<param>" or "<param>.<state>": (STEPS, ...)}"""
    options = dict(options)
    params = {name: torch.nn.Parameter(t.clone().to(dtype)) for name, t in start.items()}
    op = options.pop("op")
    if op in HAVE_FUSED:
        options["fused"] = False
    optimizer = CLASSES[op](params.values(), foreach=False, **options)
    rows = {}
    for step in range(STEPS):
        for name, p in params.items():
            p.grad = gradients[name][step].clone().to(dtype)
        optimizer.step()
        for name, p in params.items():
            rows.setdefault(name, []).append(p.detach().clone())
            for state in STATES:
                value = optimizer.state[p].get(state)
                if value is not None:
                    rows.setdefault(f"{name}.{state}", []).append(value.clone())
    return {name: torch.stack(values) for name, values in rows.items()}


def main():
    g = generator(SEED)
    start = {"weight": torch.randn(6, 5, generator=g), "bias": torch.randn(7, generator=g)}
    # Sizes from 1e-4 to 1, so that eps matters to some elements; one element never has a gradient.
    size = {name: 10 ** (-4 * torch.rand(t.shape, generator=g)) for name, t in start.items()}
    gradients = {name: torch.randn(STEPS, *t.shape, generator=g) * size[name] for name, t in start.items()}
    gradients["weight"][:, 0, 0] = 0

    tensors = {f"init.{name}": t for name, t in start.items()} | {f"grad.{name}": t for name, t in gradients.items()}
    worst = 0
    for case, options in CASES.items():
        exact = trajectory(options, start, gradients, torch.float64)
        for name, t in trajectory(options, start, gradients, torch.float32).items():
            tensors[f"{case}.{name}"] = t
            tensors[f"{case}.f64.{name}"] = exact[name]
            worst = max(worst, distance(t, exact[name]))
    write("optimizers", tensors, __file__, SEED, cases=CASES)
    print(f"torch's f32 is at most {worst:.1e} from float64")


if __name__ == "__main__":
    main()
