"""What each op of the op table gives under both policies: dtype and values, by region and input dtypes.

Writes tests/golden/autocast_values.safetensors. A policy is emulated: the classes are read from docs/ops.md (which the op table makes), inputs
are cast by hand as the class says, and the op is computed in float64. So the values are exact up to the one rounding that a test derives its
tolerance from, and torch's CUDA lists need no GPU. The dtypes under `torch` are compared here with those that torch's own dispatcher gives
(autocast_dtypes.json).

Each op's first case of ops.py is taken. Tensors: <case>.in0 ..., and <case>.<effective input dtypes>.out (.out0, ... of several). Metadata
`cases`: the cases' options; `rows`: {case: {policy: {region: {input dtypes: [dtype, effective input dtypes]}}}}, where
"bf16-f16" is rounded twice; a dtype of "error": refused.
Input dtypes: "bf16" means all floating inputs, "f32,bf16" the first and all others.
"""

import json
import re

import torch

import ops
from golden import FOLDER, write

SEED = ops.SEED
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
CONVOLUTIONS = {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
BIASES = {**{op: {2} for op in ("linear", *CONVOLUTIONS)}, "rnn": {4, 5}, "gru": {4, 5}, "lstm": {5, 6}}  # mezzo() adds them unrounded
tensors, cases, rows = {}, {}, {}


def classes():
    """{op: {policy: class}} of docs/ops.md."""
    text = (FOLDER.parents[1] / "docs" / "ops.md").read_text()
    return {op: {"mezzo": mezzo, "torch": torchs} for op, mezzo, torchs in re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \|.*\|.*\|", text, re.M)}


CLASSES = classes()
DISPATCHED = json.loads((FOLDER / "autocast_dtypes.json").read_text())["cuda"]


def row_name(op, options):
    """The row of the op table that a case belongs to."""
    if op in COMPARISONS:
        return "compare"
    return op + "_dim" if op in ("sum", "mean") and options.get("dims") else op


def widest(dtypes):
    return dtypes[0] if len(set(dtypes)) == 1 else "f32"


def cast(row, policy, region, given):
    """The inputs' dtypes after the policy's casts, and the result's; None: refused."""
    c = CLASSES[row][policy]
    if c == "banned":
        return None if policy == "torch" or any(d != "f32" for d in given) else (given, "f32")
    if c == "low":
        kept = BIASES.get(row, set()) if policy == "mezzo" else set()
        return [g if i in kept else region for i, g in enumerate(given)], "f32" if row == "linear_cross_entropy" else region
    if c == "f32":
        return given, "f32"
    if c == "widest" or row in ("compare", "swiglu"):
        return given, widest(given)
    return given, given[0]


def case(name, f, *inputs, **options):
    op = name.split(".")[0]
    row = row_name(op, options)
    if op == "linear_cross_entropy" and options["reduction"] == "none":
        return  # takes the unfused definition, whose logits are rounded: the class says it of the fused one
    if any(row == row_name(c["op"], c) for c in cases.values()):
        return
    cases[name], rows[name] = {"op": op, **options}, {}
    floating = [i for i, x in enumerate(inputs) if x.is_floating_point()]
    inputs = [x.float().double() if x.is_floating_point() else x for x in inputs]
    for i, x in enumerate(inputs):
        tensors[f"{name}.in{i}"] = x
    for policy in ("mezzo", "torch"):
        rows[name][policy] = {}
        for region in ("f16", "bf16"):
            table = rows[name][policy][region] = {}
            kinds = list(DTYPES) + ([f"f32,{region}", f"{region},f32"] if len(floating) > 1 else [])
            for kind in kinds:
                first, _, others = kind.partition(",")
                given = [first if k == 0 or not others else others for k in range(len(floating))]
                decided = cast(row, policy, region, given)
                if decided is None:
                    table[kind] = ["error", ""]
                    continue
                effective, dtype = decided
                key = "/".join(e if g in ("f32", e) else f"{g}-{e}" for g, e in zip(given, effective))
                rounded = list(inputs)
                for i, was, becomes in zip(floating, given, effective):
                    rounded[i] = inputs[i].to(DTYPES[was]).to(DTYPES[becomes]).double()
                out = f(*rounded)
                outs = [out] if isinstance(out, torch.Tensor) else list(out)
                for k, y in enumerate(outs):
                    tensors[f"{name}.{key}.out{k if len(outs) > 1 else ''}"] = y
                table[kind] = ["bool" if outs[0].dtype == torch.bool else dtype, key]
            compare_with_dispatcher(row, policy, region, table)


def compare_with_dispatcher(row, policy, region, table):
    if policy != "torch" or row not in DISPATCHED[region]:
        return
    known = {kind: "bool" if dtype == "boolean" else dtype for kind, dtype in DISPATCHED[region][row].items()}
    for kind, (dtype, _) in table.items():
        refused = known.get(kind) == "error" and CLASSES[row][policy] == "widest"  # torch's promote list refuses what mezzo widens
        if kind in known and not refused:
            assert dtype == known[kind], f"{row} of {kind} in a {region} region: {dtype}, torch's dispatcher says {known[kind]}"


def main():
    ops.case = case
    for family in ops.FAMILIES:
        family(ops.Draw(family.__name__))
    write("autocast_values", tensors, __file__, SEED, cases=cases, rows=rows)
    print(f"{len(cases)} ops")


if __name__ == "__main__":
    main()
