"""What dtype each op gives under torch's autocast, by input dtypes, for both of torch's policies.

Writes tests/golden/autocast_dtypes.json:
  cpu, cuda     {autocast dtype: {op: {input dtypes: output dtype}}}
  source        how each was got: cpu is "executed"; cuda is "dispatched": no GPU is needed, since torch's own dispatcher runs its CUDA
                autocast kernels on tensors that have a dtype, a shape and a device, but no data
  cuda_lists    {op: the list that ATen/autocast_mode.h, in the installed torch, documents for it, or "unlisted"}
Input dtypes are those of the floating inputs: "bf16" means all of them, "f32,bf16" the first and all others. "error": torch refuses.

The dispatched results are checked here against the documented lists, so that neither is taken on trust.
"""

import json
import logging
import re
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from golden import FOLDER, origin

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}
NAMES = {dtype: name for name, dtype in DTYPES.items()} | {torch.bool: "boolean"}
LOW = ("f16", "bf16")
SINGLE = list(DTYPES)
MIXED = [f"{a},{b}" for a in ("f32", "f16", "bf16") for b in ("f32", "f16", "bf16") if a != b]
SHAPE = (1, 2, 4, 4)  # square matrices, so that one shape serves all ops

# op: (number of floating inputs, call). x, y, z are the floating inputs; i indices, m a mask.
i, m = None, None


def row(t):
    return t[0, 0, 0]


def matrix(t):
    return t[0, 0]


def gates(t, n):
    return matrix(t).repeat(n, 1)


OPS = {
    "add": (2, lambda x, y: x + y), "sub": (2, lambda x, y: x - y), "mul": (2, lambda x, y: x * y), "div": (2, lambda x, y: x / y),
    "add.number": (1, lambda x: x + 2.5), "mul.number": (1, lambda x: x * 2.5), "pow": (2, torch.pow), "pow.number": (1, lambda x: x**2),
    "neg": (1, torch.neg), "abs": (1, torch.abs), "exp": (1, torch.exp), "log": (1, torch.log), "sqrt": (1, torch.sqrt), "rsqrt": (1, torch.rsqrt),
    "tanh": (1, torch.tanh), "sigmoid": (1, torch.sigmoid), "relu": (1, torch.relu), "silu": (1, F.silu), "gelu": (1, F.gelu),
    "softplus": (1, F.softplus), "sin": (1, torch.sin), "cos": (1, torch.cos), "clamp": (1, lambda x: x.clamp(-1, 1)),
    "where": (2, lambda x, y: torch.where(m, x, y)), "compare": (2, torch.lt), "masked_fill": (1, lambda x: x.masked_fill(m, 0.0)), "tril": (1, torch.tril),
    "dropout": (1, lambda x: F.dropout(x, 0.5, True)),
    "sum": (1, torch.sum), "sum_dim": (1, lambda x: x.sum(-1)), "mean": (1, torch.mean), "mean_dim": (1, lambda x: x.mean(-1)),
    "prod": (1, torch.prod), "prod_dim": (1, lambda x: x.prod(-1)), "amax": (1, lambda x: x.amax(-1)), "var": (1, torch.var),
    "var_dim": (1, lambda x: x.var(-1)), "norm": (1, torch.norm), "norm_dim": (1, lambda x: torch.linalg.vector_norm(x, dim=-1)),
    "cumsum": (1, lambda x: x.cumsum(-1)), "logsumexp": (1, lambda x: x.logsumexp(-1)), "softmax": (1, lambda x: x.softmax(-1)),
    "log_softmax": (1, lambda x: x.log_softmax(-1)),
    "matmul": (2, torch.matmul), "mm": (2, lambda x, y: torch.mm(matrix(x), matrix(y))), "bmm": (2, lambda x, y: torch.bmm(x[0], y[0])),
    "addmm": (3, lambda x, y, z: torch.addmm(matrix(x), matrix(y), matrix(z))), "einsum": (2, lambda x, y: torch.einsum("abij,abjk->abik", x, y)),
    "linear": (3, lambda x, y, z: F.linear(x, matrix(y), row(z))), "scaled_dot_product_attention": (3, F.scaled_dot_product_attention),
    "linear_cross_entropy": (2, lambda x, y: F.cross_entropy(F.linear(matrix(x), matrix(y)), i)),
    "rnn": (4, lambda x, h, w, u: torch.rnn_tanh_cell(matrix(x), matrix(h), matrix(w), matrix(u))),
    "lstm": (4, lambda x, h, w, u: torch.lstm_cell(matrix(x), (matrix(h), matrix(h)), gates(w, 4), gates(u, 4))[0]),
    "gru": (4, lambda x, h, w, u: torch.gru_cell(matrix(x), matrix(h), gates(w, 3), gates(u, 3))),
    "layer_norm": (3, lambda x, y, z: F.layer_norm(x, (4,), row(y), row(z))), "rms_norm": (2, lambda x, y: F.rms_norm(x, (4,), row(y))),
    "embedding": (1, lambda x: F.embedding(i, matrix(x))),
    "conv1d": (2, lambda x, y: F.conv1d(matrix(x)[None], matrix(y)[None])), "conv2d": (2, F.conv2d), "conv3d": (2, lambda x, y: F.conv3d(x[None], y[None])),
    "conv_transpose1d": (2, lambda x, y: F.conv_transpose1d(matrix(x)[None], matrix(y)[:, None])),
    "conv_transpose2d": (2, lambda x, y: F.conv_transpose2d(x, y.transpose(0, 1))),
    "conv_transpose3d": (2, lambda x, y: F.conv_transpose3d(x[None], y[None])),
    "max_pool2d": (1, lambda x: F.max_pool2d(x, 2)), "avg_pool2d": (1, lambda x: F.avg_pool2d(x, 2)),
    "adaptive_avg_pool2d": (1, lambda x: F.adaptive_avg_pool2d(x, 1)),
    "group_norm": (3, lambda x, y, z: F.group_norm(x.transpose(1, 2), 2, row(y), row(z))),
    "batch_norm": (3, lambda x, y, z: F.batch_norm(x.transpose(1, 2), None, None, row(y), row(z), True)),
    "cross_entropy": (1, lambda x: F.cross_entropy(matrix(x), i)), "nll_loss": (1, lambda x: F.nll_loss(matrix(x), i)), "mse_loss": (2, F.mse_loss),
    "l1_loss": (2, F.l1_loss), "smooth_l1_loss": (2, F.smooth_l1_loss), "huber_loss": (2, F.huber_loss), "kl_div": (2, F.kl_div),
    "binary_cross_entropy": (2, F.binary_cross_entropy), "binary_cross_entropy_with_logits": (2, F.binary_cross_entropy_with_logits),
    "cat": (2, lambda x, y: torch.cat([x, y])), "stack": (2, lambda x, y: torch.stack([x, y])), "split": (1, lambda x: x.split(2, -1)[0]),
    "index_select": (1, lambda x: x.index_select(-1, i)), "gather": (1, lambda x: row(x).gather(0, i)),
    "scatter_add": (2, lambda x, y: row(x).scatter_add(0, i, row(y))),
}
# Where the lists have another name: the call that decides the result's dtype.
LISTED_AS = {"rnn": "rnn_tanh_cell", "lstm": "lstm_cell", "gru": "gru_cell", "norm": "linalg_vector_norm", "cross_entropy": "nll_loss", "linear_cross_entropy": "nll_loss"}


def output_dtype(op, dtypes, device):
    """The dtype of op's result for inputs of these dtypes, in the autocast state that the caller set."""
    global i, m
    count, f = OPS[op]
    first, *others = dtypes.split(",")
    i, m = torch.arange(4, device=device), torch.ones(SHAPE, dtype=torch.bool, device=device)
    inputs = [torch.full(SHAPE, 0.5, dtype=DTYPES[first if k == 0 or not others else others[0]], device=device) for k in range(count)]
    try:
        return NAMES[f(*inputs).dtype]
    except RuntimeError:
        return "error"


def table(device, autocast_dtype):
    """{op: {input dtypes: output dtype}}; without an autocast dtype: outside autocast."""
    enabled = torch.is_autocast_enabled(device)
    torch.set_autocast_enabled(device, autocast_dtype is not None)
    if autocast_dtype:
        torch.set_autocast_dtype(device, DTYPES[autocast_dtype])
    try:
        return {op: {dtypes: output_dtype(op, dtypes, device) for dtypes in SINGLE + (MIXED if count > 1 else [])} for op, (count, _) in OPS.items()}
    finally:
        torch.set_autocast_enabled(device, enabled)
        torch.clear_autocast_cache()


def documented():
    """{op: list} out of the header's macros AT_FORALL_<LIST>(_): lines "_(name)" or "_(name, overload)"."""
    header = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    lists = {}
    for macro, label in (("LOWER_PRECISION_FP", "lower_precision"), ("FP32", "fp32"), ("FP32_SET_OPT_DTYPE", "fp32_set_opt_dtype"), ("PROMOTE", "promote")):
        body = re.search(rf"#define AT_FORALL_{macro}\(_\)((?:.*\\\n)*.*)", header).group(1)
        lists |= {name: label for name in re.findall(r"_\((\w+)", body)}
    lists["binary_cross_entropy"] = "banned"  # in code, not in a macro
    plain = {op: re.sub(r"_dim$|\.number$", "", op) for op in OPS}
    return {op: lists.get(LISTED_AS.get(name, name), "unlisted") for op, name in plain.items()}


def documented_dtype(label, dtypes, autocast_dtype, outside):
    """The dtype that a list promises for floating inputs other than f64."""
    given = dtypes.split(",")
    if label == "unlisted":
        return outside
    if label == "lower_precision":
        return autocast_dtype
    if label == "banned":
        return "error"
    if label == "promote":  # torch looks at two at a time, in order, and refuses the other 16-bit dtype before it has seen an f32
        foreign = [d in LOW and d != autocast_dtype for d in given]
        return "error" if foreign[0] or (given[0] != "f32" and any(foreign)) else "f32" if "f32" in given else autocast_dtype
    return "f32"


def check(lists, cuda, outside):
    """Every dispatched dtype is what the documented list says."""
    for autocast_dtype, by_op in cuda.items():
        for op, by_inputs in by_op.items():
            for dtypes, got in by_inputs.items():
                if dtypes != "f64":
                    wanted = documented_dtype(lists[op], dtypes, autocast_dtype, outside[op][dtypes])
                    assert got == wanted, f"{op} of {dtypes} under {autocast_dtype}: dispatched {got}, documented {wanted}"


def main():
    warnings.simplefilter("ignore")
    logging.disable()  # torch logs each refusal with a stack; here a refusal is a result
    cpu = {low: table("cpu", low) for low in LOW}
    with FakeTensorMode():
        cuda = {low: table("cuda", low) for low in LOW}
        outside = table("cuda", None)
    lists = documented()
    check(lists, cuda, outside)
    result = {"origin": origin(__file__), "source": {"cpu": "executed", "cuda": "dispatched"}, "cuda_lists": lists, "cpu": cpu, "cuda": cuda}
    path = FOLDER / "autocast_dtypes.json"
    path.write_text(readable(result) + "\n")
    print(f"{path.name}: {len(OPS)} ops, {path.stat().st_size / 1024:.0f} KiB")


def readable(value, depth=3, indent=""):
    """JSON with a line for each op, so that a new torch shows as a diff of a few lines."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value)
    lines = [f'{indent} {json.dumps(key)}: {readable(item, depth - 1, indent + " ")}' for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


if __name__ == "__main__":
    main()
