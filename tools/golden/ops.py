"""Outputs and input gradients of the ops, in float64.

Writes tests/golden/ops_f64.safetensors; README.md says how its tensors are named. Each family below draws from a generator of its own,
so a new case changes nothing but the ones after it in its family.
"""

import math
import zlib

import torch
import torch.nn.functional as F

from golden import generator, write

SEED = 3
tensors, cases = {}, {}


def case(name, f, *inputs, **options):
    """Runs out = f(*inputs), and backward from a fixed dy where out can have a gradient; options are the contract's names."""
    assert name not in cases, name
    cases[name] = {"op": name.split(".")[0], **options}
    inputs = [x.detach().clone().requires_grad_(x.is_floating_point() and not getattr(x, "constant", False)) for x in inputs]
    out = f(*inputs)
    outs = [out] if isinstance(out, torch.Tensor) else list(out)
    suffix = [""] if isinstance(out, torch.Tensor) else range(len(outs))
    for i, x in enumerate(inputs):
        tensors[f"{name}.in{i}"] = x.detach()
    for s, y in zip(suffix, outs):
        tensors[f"{name}.out{s}"] = y.detach()
    if not outs[0].requires_grad:
        return
    g = generator(zlib.crc32(name.encode()))
    dys = [torch.randn(y.shape, generator=g, dtype=torch.float64) for y in outs]
    wanted = [i for i, x in enumerate(inputs) if x.requires_grad]
    gradients = torch.autograd.grad(outs, [inputs[i] for i in wanted], dys)
    for s, dy in zip(suffix, dys):
        tensors[f"{name}.dy{s}"] = dy
    for i, dx in zip(wanted, gradients):
        tensors[f"{name}.grad{i}"] = dx


def constant(x):
    """An input that takes no gradient, such as an additive mask."""
    x.constant = True
    return x


class Draw:
    def __init__(self, family):
        self.g = generator(SEED + zlib.crc32(family.encode()))

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.g, dtype=torch.float64)

    def positive(self, *shape):
        return 0.2 + 2 * torch.rand(shape, generator=self.g, dtype=torch.float64)

    def ids(self, below, *shape):
        return torch.randint(0, below, shape, generator=self.g)

    def mask(self, *shape):
        return torch.rand(shape, generator=self.g) < 0.5


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def unary(draw):
    # The tails leave out where torch's own formula is an approximation: softplus between 20 and 36 (its threshold).
    tails = f64(-40, -12, -3, -1e-3, 1e-3, 3, 12, 40)
    anywhere = {"neg": torch.neg, "exp": torch.exp, "abs": torch.abs, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu,
                "silu": F.silu, "softplus": F.softplus, "sin": torch.sin, "cos": torch.cos, "gelu": F.gelu}
    for op, f in anywhere.items():
        case(f"{op}.plain", f, draw(3, 5))
        if op not in ("neg", "sin", "cos"):
            case(f"{op}.tails", f, tails)
    case("gelu.tanh", lambda x: F.gelu(x, approximate="tanh"), draw(3, 5), tanh=True)
    case("gelu.tanh_tails", lambda x: F.gelu(x, approximate="tanh"), tails, tanh=True)
    for op, f in {"log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt}.items():
        case(f"{op}.plain", f, draw.positive(3, 5))
        case(f"{op}.tails", f, f64(1e-30, 1e-3, 1, 1e3, 1e30))
    for op in ("abs", "relu"):  # the derivative at the kink is 0
        case(f"{op}.zero", anywhere[op], f64(-1, 0, 1))


def binary(draw):
    ops = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
    for op, f in ops.items():
        away_from_0 = draw.positive if op == "div" else draw
        case(f"{op}.same", f, draw(3, 4), away_from_0(3, 4))
        case(f"{op}.broadcast", f, draw(2, 1, 3), away_from_0(4, 1))
        case(f"{op}.row", f, draw(2, 3, 4), away_from_0(4))
        case(f"{op}.number", lambda x, f=f: f(x, 2.5), draw(3, 4), number=2.5)
    case("sub.number_left", lambda x: 2.5 - x, draw(3, 4), number=2.5, number_left=True)
    case("div.number_left", lambda x: 2.5 / x, draw.positive(3, 4), number=2.5, number_left=True)

    case("pow.same", torch.pow, draw.positive(3, 4), draw(3, 4))
    case("pow.broadcast", torch.pow, draw.positive(3, 4), draw(4))
    for label, number in {"square": 2, "cube": 3, "one": 1, "zero": 0, "inverse": -1}.items():
        case(f"pow.{label}", lambda x, n=number: torch.pow(x, n), draw(3, 4), number=number)
    case("pow.root", lambda x: torch.pow(x, 0.5), draw.positive(3, 4), number=0.5)
    case("pow.number", lambda x: torch.pow(x, -1.7), draw.positive(3, 4), number=-1.7)
    case("pow.of_zero", lambda x: torch.pow(x, 2), f64(-1, 0, 1), number=2)

    left, right = draw.ids(3, 3, 4).double(), draw.ids(3, 3, 4).double()
    for op in ("eq", "ne", "lt", "le", "gt", "ge"):
        case(f"{op}.same", getattr(torch, op), left, right)
        case(f"{op}.number", lambda x, op=op: getattr(torch, op)(x, 1), left, number=1)


def selection(draw):
    x = f64(-2, -1, -0.5, 0, 0.5, 1, 2)
    case("clamp.both", lambda x: x.clamp(-0.7, 0.6), x, min=-0.7, max=0.6)
    case("clamp.min", lambda x: x.clamp(min=-0.7), x, min=-0.7)
    case("clamp.max", lambda x: x.clamp(max=0.6), x, max=0.6)
    case("clamp.edge", lambda x: x.clamp(-1, 1), x, min=-1, max=1)  # on the edge torch 2.15's derivative is 0
    case("where.same", torch.where, draw.mask(3, 4), draw(3, 4), draw(3, 4))
    case("where.broadcast", torch.where, draw.mask(3, 1), draw(4), draw(2, 1, 1))
    case("masked_fill.same", lambda x, m: x.masked_fill(m, -1.5), draw(3, 4), draw.mask(3, 4), number=-1.5)
    case("masked_fill.broadcast", lambda x, m: x.masked_fill(m, -math.inf), draw(2, 3, 4), draw.mask(3, 4), number="-inf")
    for label, shape in {"square": (4, 4), "wide": (3, 5), "tall": (5, 3), "batch": (2, 3, 3)}.items():
        case(f"tril.{label}", torch.tril, draw(*shape))


def reductions(draw):
    for op in ("sum", "mean", "amax"):
        f = getattr(torch, op)
        case(f"{op}.all", f, draw(3, 4))
        case(f"{op}.last", lambda x, f=f: f(x, dim=-1), draw(2, 3, 4), dims=[-1])
        case(f"{op}.first", lambda x, f=f: f(x, dim=0), draw(2, 3, 4), dims=[0])
        case(f"{op}.middle_keep", lambda x, f=f: f(x, dim=1, keepdim=True), draw(2, 3, 4), dims=[1], keepdim=True)
        case(f"{op}.two", lambda x, f=f: f(x, dim=(0, 2)), draw(2, 3, 4), dims=[0, 2])
    case("amax.tie", lambda x: x.amax(dim=-1), f64(1, 3, 3, 2, 2, 2).view(2, 3), dims=[-1])  # ties share the gradient
    case("prod.all", torch.prod, draw(2, 3))
    case("prod.last", lambda x: x.prod(dim=-1), draw(2, 3, 4), dims=[-1])
    case("prod.middle_keep", lambda x: x.prod(dim=1, keepdim=True), draw(2, 3, 4), dims=[1], keepdim=True)
    case("prod.zeros", lambda x: x.prod(dim=-1), f64(1, 2, 3, 1, 0, 3, 0, 2, 0).view(3, 3), dims=[-1])

    for label, options in {"all": {}, "last": {"dims": [-1]}, "two_keep": {"dims": [0, 2], "keepdim": True},
                           "biased": {"dims": [1], "correction": 0}}.items():
        torchs = {"dim" if k == "dims" else k: v for k, v in options.items()}
        case(f"var.{label}", lambda x, o=torchs: torch.var(x, **o), draw(2, 3, 4), **options)
    case("var.far", lambda x: torch.var(x, dim=-1), 1e4 + draw(3, 8), dims=[-1])

    for label, options in {"all": {}, "last": {"dims": [-1]}, "two_keep": {"dims": [0, 2], "keepdim": True}, "one": {"dims": [1], "p": 1},
                           "three": {"dims": [1], "p": 3}, "max": {"dims": [1], "p": "inf"}}.items():
        torchs = {"dim": options.get("dims"), "keepdim": options.get("keepdim", False), "ord": float(options.get("p", 2))}
        case(f"norm.{label}", lambda x, o=torchs: torch.linalg.vector_norm(x, **o), draw(2, 3, 4), **options)
    case("norm.zero", lambda x: torch.linalg.vector_norm(x, dim=-1), f64(0, 0, 3, 4).view(2, 2), dims=[-1])  # gradient of |0|: 0

    holes = draw(3, 4)
    holes[0, 1] = holes[2, 0] = holes[2, 3] = -math.inf
    for op in ("softmax", "log_softmax", "logsumexp", "cumsum"):
        f = getattr(torch, op)
        for label, dim in {"last": -1, "first": 0, "middle": 1}.items():
            case(f"{op}.{label}", lambda x, f=f, dim=dim: f(x, dim=dim), draw(2, 3, 4), dim=dim)
        if op != "cumsum":
            case(f"{op}.large", lambda x, f=f: f(x, dim=-1), 1000 + 10 * draw(3, 4), dim=-1)
        if op in ("softmax", "logsumexp"):
            case(f"{op}.masked", lambda x, f=f: f(x, dim=-1), holes, dim=-1)


def products(draw):
    for label, (a, b) in {"matrices": ((3, 4), (4, 5)), "batch": ((2, 3, 4), (2, 4, 5)), "broadcast": ((2, 1, 3, 4), (3, 4, 2)),
                          "shared_right": ((2, 3, 4), (4, 5)), "shared_left": ((3, 4), (2, 4, 5)), "row": ((4,), (4, 5)), "column": ((3, 4), (4,)),
                          "dot": ((4,), (4,)), "batch_column": ((2, 3, 4), (4,)), "row_batch": ((4,), (2, 4, 3))}.items():
        case(f"matmul.{label}", torch.matmul, draw(*a), draw(*b))
    case("matmul.transposed", lambda a, b: a @ b.transpose(-1, -2), draw(2, 3, 4), draw(2, 5, 4), transpose_right=True)
    case("mm.plain", torch.mm, draw(3, 4), draw(4, 5))
    case("bmm.plain", torch.bmm, draw(2, 3, 4), draw(2, 4, 5))
    case("addmm.matrix", torch.addmm, draw(3, 5), draw(3, 4), draw(4, 5))
    case("addmm.row", torch.addmm, draw(5), draw(3, 4), draw(4, 5))
    case("linear.bias", F.linear, draw(3, 4), draw(5, 4), draw(5))
    case("linear.no_bias", F.linear, draw(3, 4), draw(5, 4))
    case("linear.batch", F.linear, draw(2, 3, 4), draw(5, 4), draw(5))


def einsums(draw):
    specs = {
        "matrices": ("ij,jk->ik", (3, 4), (4, 5)), "implicit": ("ij,jk", (3, 4), (4, 5)), "implicit_order": ("ba,cb", (3, 4), (2, 3)),
        "right_transposed": ("ij,kj->ik", (3, 4), (5, 4)), "left_transposed": ("ji,jk->ki", (4, 3), (4, 5)), "batch": ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        "batch_last": ("ijb,jkb->bik", (3, 4, 2), (4, 5, 2)), "heads": ("bthd,bshd->bhts", (2, 3, 2, 4), (2, 5, 2, 4)),
        "two_summed": ("aij,bij->ab", (2, 3, 4), (5, 3, 4)), "two_summed_crossed": ("aij,jib->ab", (2, 3, 4), (4, 3, 5)),
        "free_summed": ("ij,kl->ik", (3, 4), (2, 5)), "free_and_shared": ("ijm,jkn->ik", (3, 4, 2), (4, 5, 2)), "dot": ("i,i->", (4,), (4,)),
        "outer": ("i,j->ij", (3,), (4,)), "scaled_rows": ("ij,i->ij", (3, 4), (3,)), "elementwise_sum": ("ij,ij->i", (3, 4), (3, 4)),
        "ellipsis": ("...ij,...jk->...ik", (2, 2, 3, 4), (2, 2, 4, 3)), "ellipsis_broadcast": ("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 2)),
        "ellipsis_implicit": ("...ij,jk", (2, 3, 4), (4, 5)), "ellipsis_middle": ("i...k,kj->j...i", (3, 2, 4), (4, 5)), "size_one": ("ij,jk->ik", (3, 1), (4, 5)),
        "chain": ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)), "three": ("bi,bj,bij->b", (2, 3), (2, 4), (2, 3, 4)),
        "transpose": ("ij->ji", (3, 4)), "sum": ("ij->", (3, 4)), "columns": ("ij->j", (3, 4)), "trace": ("ii->", (4, 4)), "diagonal": ("ii->i", (4, 4)),
        "diagonal_inside": ("bii,ic->bc", (2, 3, 3), (3, 4)), "diagonal_apart": ("ibi->bi", (3, 2, 3)), "implicit_trace": ("ii", (3, 3)),
    }
    for label, (spec, *shapes) in specs.items():
        case(f"einsum.{label}", lambda *xs, spec=spec: torch.einsum(spec, *xs), *(draw(*s) for s in shapes), spec=spec)


def recurrent(draw):
    """One direction of one layer; inputs x h c w_ih w_hh b_ih b_hh (c of the LSTM alone), outputs y and the LSTM's last c."""
    def layer(cell, gates, reverse=False, relu=False, t=4, b=3, i=2, h=3):
        x, states = draw(t, b, i), [draw(b, h) for _ in range(2 if cell == "lstm" else 1)]
        weights = [0.5 * draw(gates * h, i), 0.5 * draw(gates * h, h), 0.5 * draw(gates * h), 0.5 * draw(gates * h)]
        run = {"lstm": torch._VF.lstm, "gru": torch._VF.gru, "rnn": torch._VF.rnn_relu if relu else torch._VF.rnn_tanh}[cell]

        def f(x, *rest):
            n = len(states)
            first = tuple(s.unsqueeze(0) for s in rest[:n])
            x = x.flip(0) if reverse else x
            y, _, *c = run(x, first if n == 2 else first[0], list(rest[n:]), True, 1, 0.0, False, False, False)
            y = y.flip(0) if reverse else y
            return (y, c[0].squeeze(0)) if c else y

        label = ("relu" if relu else "plain") + ("_reverse" if reverse else "") + ("_step" if t == 1 else "")
        case(f"{cell}.{label}", f, x, *states, *weights, **({"reverse": True} if reverse else {}), **({"relu": True} if relu else {}))

    for cell, gates in {"rnn": 1, "lstm": 4, "gru": 3}.items():
        layer(cell, gates)
        layer(cell, gates, reverse=True)
        layer(cell, gates, t=1)
    layer("rnn", 1, relu=True)


def norms(draw):
    for label, affine in {"plain": (), "weight": ((5,),), "weight_bias": ((5,), (5,))}.items():
        case(f"layer_norm.{label}", lambda x, *wb: F.layer_norm(x, (5,), *wb, eps=1e-5), draw(2, 3, 5), *(draw(*s) for s in affine), eps=1e-5)
    case("layer_norm.far", lambda x, w, b: F.layer_norm(x, (5,), w, b, eps=1e-5), 100 + draw(3, 5), draw(5), draw(5), eps=1e-5)
    case("layer_norm.tiny", lambda x: F.layer_norm(x, (5,), eps=1e-3), 1e-2 * draw(3, 5), eps=1e-3)  # eps outweighs the variance
    for label, affine in {"plain": (), "weight": ((5,),)}.items():
        case(f"rms_norm.{label}", lambda x, *w: F.rms_norm(x, (5,), *w, eps=1e-5), draw(2, 3, 5), *(draw(*s) for s in affine), eps=1e-5)
    case("rms_norm.tiny", lambda x: F.rms_norm(x, (5,), eps=1e-3), 1e-2 * draw(3, 5), eps=1e-3)


def convolutions(draw):
    """Numbers, and one number a dimension; each tensor is small, since second derivatives are checked element by element."""
    def run(name, x, w, bias=True, **options):
        op = name.split(".")[0]
        out = w[1] * options.get("groups", 1) if "transpose" in op else w[0]
        case(name, lambda *xs: getattr(F, op)(*xs, **options), draw(*x), draw(*w), *([draw(out)] if bias else []), **options)

    run("conv1d.plain", (2, 3, 7), (4, 3, 3))
    run("conv1d.spread", (2, 2, 9), (3, 2, 3), bias=False, stride=2, padding=2, dilation=2)
    run("conv1d.unbatched", (3, 6), (2, 3, 2))
    run("conv2d.plain", (2, 3, 5, 4), (4, 3, 3, 2))
    run("conv2d.padded", (1, 2, 4, 4), (3, 2, 3, 3), padding=1)
    run("conv2d.all", (1, 4, 6, 5), (6, 2, 3, 2), stride=[2, 1], padding=[1, 2], dilation=[1, 2], groups=2)
    run("conv2d.depthwise", (2, 3, 4, 4), (3, 1, 3, 3), bias=False, padding=1, groups=3)
    run("conv2d.pointwise", (2, 3, 3, 2), (4, 3, 1, 1))
    run("conv2d.whole", (2, 2, 3, 4), (3, 2, 3, 4))
    run("conv3d.plain", (1, 2, 3, 4, 3), (3, 2, 2, 2, 3))
    run("conv3d.all", (1, 2, 4, 3, 4), (2, 1, 2, 3, 2), stride=[2, 1, 1], padding=[0, 1, 1], dilation=[1, 1, 2], groups=2)
    run("conv_transpose1d.plain", (2, 3, 4), (3, 2, 3), stride=2, padding=1, output_padding=1)
    run("conv_transpose2d.plain", (2, 3, 3, 2), (3, 2, 3, 2))
    run("conv_transpose2d.all", (1, 4, 2, 3), (4, 2, 2, 3), stride=[2, 3], padding=[1, 0], output_padding=[1, 2], dilation=[2, 1], groups=2)
    run("conv_transpose2d.dilated", (1, 2, 3, 3), (2, 2, 2, 2), bias=False, dilation=3, output_padding=2)
    run("conv_transpose3d.plain", (1, 2, 2, 3, 2), (2, 2, 2, 2, 3), stride=[1, 2, 1])


def pooling(draw):
    for op, f in {"max_pool2d": F.max_pool2d, "avg_pool2d": F.avg_pool2d}.items():
        def run(name, x, **options):
            case(f"{op}.{name}", lambda x, f=f, kernel=options["kernel"], o={k: v for k, v in options.items() if k != "kernel"}: f(x, kernel, **o), draw(*x), **options)

        run("plain", (2, 2, 4, 6), kernel=2)
        run("overlapping", (1, 2, 7, 6), kernel=3, stride=2, padding=1)
        run("sides", (2, 5, 7), kernel=[2, 3], stride=[1, 2], padding=[1, 0])
        run("ceil", (1, 2, 6, 5), kernel=3, stride=2, padding=1, ceil_mode=True)
        run("gaps", (1, 1, 7, 8), kernel=2, stride=3)
    case("max_pool2d.equal", lambda x: F.max_pool2d(x, 2), torch.ones(1, 1, 4, 4, dtype=torch.float64), kernel=2)
    case("avg_pool2d.padding_left_out", lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), draw(1, 2, 6, 5), kernel=3, stride=2, padding=1, ceil_mode=True,
         count_include_pad=False)
    for label, (x, out) in {"whole": ((2, 3, 4, 5), (1, 1)), "even": ((2, 2, 4, 6), (2, 3)), "uneven": ((1, 2, 5, 7), (3, 4)),
                            "more": ((2, 3, 2), (5, 3))}.items():
        case(f"adaptive_avg_pool2d.{label}", lambda x, out=out: F.adaptive_avg_pool2d(x, out), draw(*x), out=list(out))


def channel_norms(draw):
    for label, shape in {"rows": (5, 3), "sequence": (2, 3, 4), "images": (2, 3, 2, 3)}.items():
        for training in (True, False):
            running = [constant(draw(3)), constant(draw.positive(3))]
            case(f"batch_norm.{label}_{'training' if training else 'running'}",
                 lambda x, m, v, w, b, t=training: F.batch_norm(x, m.clone(), v.clone(), w, b, t, 0.1, 1e-5),
                 draw(*shape), *running, draw(3), draw(3), training=training, eps=1e-5)
    case("batch_norm.plain", lambda x, m, v: F.batch_norm(x, m.clone(), v.clone(), None, None, True, 0.1, 1e-3), 1e-1 * draw(2, 2, 3), constant(draw(2)),
         constant(draw.positive(2)), training=True, eps=1e-3)
    for label, shape, groups in (("images", (2, 4, 2, 3), 2), ("each", (2, 3, 4), 3), ("one", (2, 4, 3), 1), ("rows", (3, 6), 2)):
        case(f"group_norm.{label}", lambda x, w, b, g=groups: F.group_norm(x, g, w, b, eps=1e-5), draw(*shape), draw(shape[1]), draw(shape[1]), groups=groups,
             eps=1e-5)
    case("group_norm.plain", lambda x: F.group_norm(x, 2, eps=1e-5), draw(2, 4, 3), groups=2, eps=1e-5)


def attention(draw):
    def run(name, q, kv, mask=None, **options):
        q, k, v = draw(*q), draw(*kv), draw(*kv)
        gqa = q.shape[1] != k.shape[1]
        inputs = [q, k, v] + ([mask] if mask is not None else [])
        case(f"scaled_dot_product_attention.{name}",
             lambda q, k, v, m=None: F.scaled_dot_product_attention(q, k, v, attn_mask=m, enable_gqa=gqa, **options), *inputs, **options)

    run("plain", (2, 2, 4, 3), (2, 2, 4, 3))
    run("longer_keys", (1, 2, 3, 4), (1, 2, 5, 4))
    run("causal", (2, 2, 5, 3), (2, 2, 5, 3), is_causal=True)
    run("scale", (1, 2, 4, 3), (1, 2, 4, 3), is_causal=True, scale=0.25)
    run("groups", (1, 4, 3, 2), (1, 2, 3, 2))
    run("groups_causal", (2, 4, 4, 2), (2, 1, 4, 2), is_causal=True)
    keep = torch.eye(4, dtype=torch.bool) | draw.mask(4, 4)  # no row is masked out whole
    run("mask", (2, 2, 4, 3), (2, 2, 4, 3), mask=keep)
    run("mask_per_head", (1, 2, 4, 3), (1, 2, 4, 3), mask=torch.eye(4, dtype=torch.bool) | draw.mask(1, 2, 4, 4))
    run("mask_additive", (1, 2, 4, 3), (1, 2, 4, 3), mask=constant(draw(4, 4)))
    run("mask_groups", (1, 4, 4, 2), (1, 2, 4, 2), mask=keep)


def losses(draw):
    def each_reduction(name, f, *inputs, **options):
        for reduction in ("none", "mean", "sum"):
            case(f"{name}_{reduction}", lambda *xs: f(*xs, reduction=reduction), *inputs, **options, reduction=reduction)

    target = draw.ids(5, 4)
    holes = target.clone()
    holes[1] = -100
    zeros = torch.tensor([0, 3, 0, 2])
    for op, f, x in (("cross_entropy", F.cross_entropy, 2 * draw(4, 5)), ("nll_loss", F.nll_loss, torch.log_softmax(draw(4, 5), -1))):
        each_reduction(f"{op}.plain", f, x, target)
        each_reduction(f"{op}.ignored", f, x, holes)
        each_reduction(f"{op}.ignore_zero", lambda x, t, f=f, **o: f(x, t, ignore_index=0, **o), x, zeros, ignore_index=0)
    each_reduction("cross_entropy.large", F.cross_entropy, 1000 + 50 * draw(4, 5), target)
    weight = constant(draw.positive(5))
    for op, f, x in (("cross_entropy", F.cross_entropy, 2 * draw(4, 5)), ("nll_loss", F.nll_loss, torch.log_softmax(draw(4, 5), -1))):
        each_reduction(f"{op}.weight", lambda x, t, w, f=f, **o: f(x, t, weight=w, **o), x, holes, weight)
    smooth = lambda x, t, w=None, **o: F.cross_entropy(x, t, weight=w, label_smoothing=0.2, **o)
    each_reduction("cross_entropy.smooth", smooth, 2 * draw(4, 5), holes, label_smoothing=0.2)
    each_reduction("cross_entropy.smooth_weight", smooth, 2 * draw(4, 5), holes, weight, label_smoothing=0.2)

    def linear_cross_entropy(x, w, t, **options):
        return F.cross_entropy(F.linear(x, w), t, **options)

    each_reduction("linear_cross_entropy.plain", linear_cross_entropy, draw(4, 3), draw(5, 3), target)
    each_reduction("linear_cross_entropy.ignored", linear_cross_entropy, draw(4, 3), draw(5, 3), holes)

    each_reduction("linear_cross_entropy.smooth", lambda x, w, t, **o: F.cross_entropy(F.linear(x, w), t, label_smoothing=0.1, **o), draw(4, 3),
                   draw(5, 3), holes, label_smoothing=0.1)

    for op in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        each_reduction(f"{op}.plain", getattr(F, op), 2 * draw(3, 4), draw(3, 4))
    each_reduction("smooth_l1_loss.beta", lambda x, y, **o: F.smooth_l1_loss(x, y, beta=0.3, **o), draw(3, 4), draw(3, 4), beta=0.3)
    each_reduction("huber_loss.delta", lambda x, y, **o: F.huber_loss(x, y, delta=0.4, **o), draw(3, 4), draw(3, 4), delta=0.4)
    case("smooth_l1_loss.beta_zero", lambda x, y: F.smooth_l1_loss(x, y, beta=0), draw(3, 4), draw(3, 4), beta=0)
    case("l1_loss.zero", F.l1_loss, f64(-1, 0, 1), f64(-1, 0, 2))  # the derivative at the kink is 0
    logs = lambda *shape: torch.log_softmax(draw(*shape), -1)
    each_reduction("kl_div.plain", F.kl_div, logs(3, 4), torch.softmax(draw(3, 4), -1))
    each_reduction("kl_div.log_target", lambda x, y, **o: F.kl_div(x, y, log_target=True, **o), logs(3, 4), logs(3, 4), log_target=True)
    case("kl_div.batchmean", lambda x, y: F.kl_div(x, y, reduction="batchmean"), logs(3, 4), torch.softmax(draw(3, 4), -1), reduction="batchmean")
    case("kl_div.zeros", F.kl_div, logs(2, 3), constant(f64(0, 0.25, 0.75, 1, 0, 0).view(2, 3)))
    each_reduction("binary_cross_entropy.plain", F.binary_cross_entropy, torch.sigmoid(draw(3, 4)),
                   constant(torch.rand(3, 4, generator=draw.g, dtype=torch.float64)))
    case("binary_cross_entropy.ends", F.binary_cross_entropy, f64(0, 1, 1e-9, 0.25), constant(f64(0, 1, 0, 1)))
    each_reduction("binary_cross_entropy.weight", lambda x, y, w, **o: F.binary_cross_entropy(x, y, weight=w, **o), torch.sigmoid(draw(3, 4)),
                   constant(torch.rand(3, 4, generator=draw.g, dtype=torch.float64)), constant(draw.positive(4)))
    bce = F.binary_cross_entropy_with_logits
    each_reduction("binary_cross_entropy_with_logits.plain", bce, 2 * draw(3, 4), constant(torch.rand(3, 4, generator=draw.g, dtype=torch.float64)))
    each_reduction("binary_cross_entropy_with_logits.tails", bce, f64(-800, -40, 0, 40, 800), constant(f64(1, 0, 1, 0, 1)))


def indexing(draw):
    case("embedding.ids", lambda i, w: F.embedding(i, w), draw.ids(4, 2, 3), draw(6, 5))  # rows met twice, and never
    case("embedding.one", lambda i, w: F.embedding(i, w), torch.tensor(2), draw(6, 5))
    for label, dim in {"first": 0, "last": -1}.items():
        case(f"cat.{label}", lambda *xs, dim=dim: torch.cat(xs, dim), *(draw(*((n, 3) if dim == 0 else (2, n))) for n in (1, 3, 2)), dim=dim)
        case(f"stack.{label}", lambda *xs, dim=dim: torch.stack(xs, dim), draw(2, 3), draw(2, 3), draw(2, 3), dim=dim)
    case("split.even", lambda x: x.split(2, dim=-1), draw(3, 6), size=2, dim=-1)
    case("split.rest", lambda x: x.split(2, dim=0), draw(5, 3), size=2, dim=0)
    case("index_select.first", lambda x, i: x.index_select(0, i), draw(4, 3), torch.tensor([2, 0, 2]), dim=0)
    case("index_select.last", lambda x, i: x.index_select(-1, i), draw(2, 4), torch.tensor([3, 3, 1, 0, 3]), dim=-1)
    case("gather.first", lambda x, i: x.gather(0, i), draw(4, 3), draw.ids(4, 2, 3), dim=0)
    case("gather.last", lambda x, i: x.gather(-1, i), draw(2, 3, 4), draw.ids(4, 2, 3, 2), dim=-1)
    case("scatter_add.first", lambda x, i, s: x.scatter_add(0, i, s), draw(4, 3), draw.ids(4, 5, 3), draw(5, 3), dim=0)
    case("scatter_add.last", lambda x, i, s: x.scatter_add(-1, i, s), draw(2, 4), draw.ids(4, 2, 6), draw(2, 6), dim=-1)


FAMILIES = (unary, binary, selection, reductions, products, einsums, recurrent, norms, convolutions, pooling, channel_norms, attention, losses, indexing)


def main():
    for family in FAMILIES:
        family(Draw(family.__name__))
    write("ops_f64", tensors, __file__, SEED, cases=cases)
    print(f"{len(cases)} cases of {len({c['op'] for c in cases.values()})} ops")


if __name__ == "__main__":
    main()
