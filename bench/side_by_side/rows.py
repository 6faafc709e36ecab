"""The rows of the comparison: which training step, who runs it, and what the figures must be."""

import dataclasses
import os

from peers import environment

from .contenders import ROOT, Contender

TCMALLOC = ", tcmalloc"


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that must be reached: at least `must` of a speed or a share, at most `must` of a size or a count.

    Times and sizes compare `ours` with `theirs`, round by round; of several peers the one that is hardest to beat counts.
    """

    ours: str
    theirs: tuple
    must: float
    aim: float
    field: str = "step_ms_median"

    @property
    def at_most(self):
        return self.field in ("peak_rss_bytes", "minor_faults_per_step", "mappings_per_step")


def faster(ours, theirs, must, aim):
    return Target(f"mezzo {ours}", (theirs,) if isinstance(theirs, str) else theirs, must, aim)


def smaller(ours, theirs, must, aim):
    return Target(f"mezzo {ours}", (theirs,), must, aim, "peak_rss_bytes")


def alone(ours, field, must, aim):
    return Target(f"mezzo {ours}", (), must, aim, field)


def asks_the_system_for_nothing(ours):
    return alone(ours, "minor_faults_per_step", 0, 0), alone(ours, "mappings_per_step", 0, 0)


@dataclasses.dataclass(frozen=True)
class GptRow:
    title: str
    layers: int
    heads: int
    width: int
    vocab: int
    context: int
    batch: int
    seq: int
    own: tuple  # recipes of mezzo
    peers: tuple  # (precision, "eager" | "compile")
    steps: int = 8
    targets: tuple = ()
    allocators: tuple = ("", TCMALLOC)

    def mezzo(self, args, recipe):
        spec = f"gpt:layers={self.layers},heads={self.heads},width={self.width},vocab={self.vocab},context={self.context}"
        return [args.mezzo, "bench", "--model", spec, "--batch", str(self.batch), "--seq", str(self.seq), "--precision", recipe,
                "--steps", str(args.steps or self.steps), "--threads", str(args.threads), "--json"]

    def torch(self, args, precision, mode):
        sizes = [word for name in ("layers", "heads", "width", "vocab", "context", "batch", "seq") for word in (f"--{name}", str(getattr(self, name)))]
        return [args.python, "bench/peers/gpt_torch.py", *sizes, "--precision", precision, "--steps", str(args.steps or self.steps),
                "--threads", str(args.threads)] + ["--compile"] * (mode == "compile")


@dataclasses.dataclass(frozen=True)
class MlpRow:
    """A perceptron of three layers so small that what a step costs beside its arithmetic decides."""

    title: str
    width: int
    batch: int = 32
    own: tuple = ("fp32",)
    peers: tuple = (("fp32", "eager"),)
    targets: tuple = (faster("fp32", "PyTorch fp32 eager", 3, 4),)
    allocators: tuple = ("", TCMALLOC)

    def sizes(self, args):
        return ["--width", str(self.width), "--batch", str(self.batch), "--seconds", "2", "--threads", str(args.threads)]

    def mezzo(self, args, recipe):
        return [ROOT / "build" / "release" / "bench_tiny", "--mlp", "true", *self.sizes(args)]

    def torch(self, args, precision, mode):
        return [args.python, "bench/peers/mlp_torch.py", *self.sizes(args)]


def contenders(args, row):
    """All that run this row: mezzo's recipes, then the peers, each as installed and with tcmalloc preloaded."""
    result = []
    if not args.peers_only:
        result += [Contender(f"mezzo {recipe}", row.mezzo(args, recipe), dict(os.environ)) for recipe in row.own]
    if args.own_only:
        return result
    for precision, mode in row.peers:
        for suffix in row.allocators:
            preload = environment.tcmalloc() if suffix else ""
            if not suffix or (preload and not args.no_tcmalloc):
                result.append(Contender(f"PyTorch {precision} {mode}{suffix}", row.torch(args, precision, mode), environment.variables(preload), preload))
    return result


def startup_bytes(args):
    """mezzo's resident bytes before there is a model to speak of: its peak with a toy one. PyTorch's script reports its own."""
    if args.peers_only:
        return None
    toy = Contender("toy", dataclasses.replace(ROWS["toy"], steps=1).mezzo(args, "fp32"), dict(os.environ))
    toy.run(args.seconds)
    return toy.median("peak_rss_bytes")


FP32, BF16, BF16_COMPILE = ("fp32", "eager"), ("bf16", "eager"), ("bf16", "compile")
SMALL = {"layers": 6, "heads": 6, "width": 384, "vocab": 65, "context": 256}
GPT2_124M = {"layers": 12, "heads": 12, "width": 768, "vocab": 50257, "context": 1024}
EAGER, COMPILE = "PyTorch bf16 eager", "PyTorch bf16 compile"

ROWS = {
    "small": GptRow(
        "GPT 6x384 (10.8 M parameters), B 12, T 256", **SMALL, batch=12, seq=256, own=("fp32", "bf16", "fp16"),
        peers=(FP32, BF16, BF16_COMPILE),
        targets=(
            faster("bf16", (EAGER, COMPILE), 1.40, 1.55),
            faster("bf16", (EAGER + TCMALLOC, COMPILE + TCMALLOC), 1.35, 1.50),
            faster("fp32", "PyTorch fp32 eager" + TCMALLOC, 1.15, 1.28),
            faster("bf16", "mezzo fp32", 1.85, 1.97),
            faster("bf16", "PyTorch fp32 eager", 2.3, 2.6),
            faster("fp16", "mezzo fp32", 0.95, 1.0),
            smaller("bf16", EAGER, 0.50, 0.44),
            *asks_the_system_for_nothing("bf16"),
        )),
    "124m-256": GptRow(
        "GPT-2 124M, B 4, T 256", **GPT2_124M, batch=4, seq=256, steps=5, own=("fp32", "bf16", "bf16-split", "bf16-sr"),
        peers=(FP32, BF16, BF16_COMPILE),
        targets=(
            faster("bf16", EAGER, 1.75, 2.0),
            faster("bf16", COMPILE, 1.45, 1.65),
            faster("bf16", EAGER + TCMALLOC, 1.25, 1.38),
            faster("bf16", COMPILE + TCMALLOC, 1.12, 1.24),
            faster("fp32", "PyTorch fp32 eager" + TCMALLOC, 1.05, 1.18),
            faster("bf16", "mezzo fp32", 1.85, 1.97),
            faster("bf16", "PyTorch fp32 eager", 2.6, 3.0),
            alone("bf16", "fraction_of_peak", 0.76, 0.82),
            smaller("bf16", EAGER, 0.85, 0.76),
            smaller("bf16-split", EAGER, 0.65, 0.58),
            smaller("bf16-sr", EAGER, 0.45, 0.38),
            *asks_the_system_for_nothing("bf16"),
        )),
    "124m-64": GptRow(
        "GPT-2 124M, B 4, T 64", **GPT2_124M, batch=4, seq=64, own=("bf16",), peers=(BF16, BF16_COMPILE),
        targets=(faster("bf16", EAGER, 1.6, 1.9), faster("bf16", EAGER + TCMALLOC, 1.02, 1.15), *asks_the_system_for_nothing("bf16"))),
    "fp16": GptRow(
        "GPT 6x384 in fp16 with dynamic loss scaling, B 4, T 64", **SMALL, batch=4, seq=64, steps=4, own=("fp32", "fp16"),
        peers=(("fp16", "eager"),), allocators=("",),
        targets=(faster("fp16", "PyTorch fp16 eager", 15, 25),)),
    "mlp-32": MlpRow("perceptron of 3 layers, width 32, batch 32, AdamW", 32),
    "mlp-64": MlpRow("perceptron of 3 layers, width 64, batch 32, AdamW", 64),
    "mlp-128": MlpRow("perceptron of 3 layers, width 128, batch 32, AdamW", 128),
    "toy": GptRow("GPT 1x32, to try the script out", layers=1, heads=1, width=32, vocab=65, context=8, batch=1, seq=8, steps=2,
                  own=("fp32", "bf16"), peers=(FP32, BF16), targets=(faster("bf16", EAGER, 1, 1), smaller("bf16", EAGER, 1, 1))),
}
