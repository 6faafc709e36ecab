"""GGUF's block formats as the `gguf` package's numpy code unpacks and packs them, and NF4, which it does not know, from its definition.

Writes tests/golden/blocks.safetensors:
  <format>.blocks, <format>.values    random blocks (u8) with finite scales, and their elements (f32)
  x, x.Q8_0, x.Q4_0, x.NF4            numbers (f32), and the blocks they are packed into (u8)
"""

from statistics import NormalDist

import gguf
import numpy as np
import torch
from gguf import quants

from golden import write

SEED = 6
FORMATS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
SCALES_AT = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}  # byte offsets of f16 numbers; elsewhere 0
ELEMENTS = 2048


def random_blocks(rng, name):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (ELEMENTS // elements, size), dtype=np.uint8)
    for at in SCALES_AT.get(name, (0,)):
        scales = (rng.standard_normal(len(blocks)) * 10.0 ** rng.uniform(-6, 2, len(blocks))).astype(np.float16)
        scales[:2] = 0, 2.0**-24  # none, and the smallest
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


NF4_BLOCK = 64


# The levels as QLoRA (arXiv 2305.14314) prints them in appendix E.
NF4_PRINTED = """-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434,
0.5626170039176941, 0.7229568362236023, 1.0"""


def nf4_quantiles():
    """What they are, up to the rounding of the program that printed them: the quantiles of a normal distribution at 9 points of its upper and 8 of its lower half, evenly spaced from
    offset to 1/2 in probability, together with one zero, over the largest; the offset is the mean of 1 - 1/30 and 1 - 1/32."""
    offset, quantile = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30)), NormalDist().inv_cdf
    upper = [quantile(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    lower = [-quantile(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    levels = np.array(sorted(lower + [0.0] + upper))
    return levels / levels.max()


def nf4_levels():
    levels = np.array([float(x) for x in NF4_PRINTED.split(",")])
    assert np.abs(levels - nf4_quantiles()).max() < 3e-7
    return levels


def nf4_bytes(scales, codes):
    """Blocks of an f16 scale and 32 bytes: element i in the low half of byte i, element i + 32 in the high half."""
    packed = (codes[:, :32] | codes[:, 32:] << 4).astype(np.uint8)
    return np.concatenate([scales.astype(np.float16).view(np.uint8).reshape(-1, 2), packed], axis=1)


def nf4_blocks(rng):
    """Random blocks and their elements: products of an f16 and of a level as f32 has it, exact in double, rounded once."""
    n = ELEMENTS // NF4_BLOCK
    scales = (np.abs(rng.standard_normal(n)) * 10.0 ** rng.uniform(-6, 2, n)).astype(np.float16)
    scales[:2] = 0, 2.0**-24
    codes = rng.integers(0, 16, (n, NF4_BLOCK))
    values = scales.astype(np.float64)[:, None] * nf4_levels().astype(np.float32).astype(np.float64)[codes]
    return nf4_bytes(scales, codes), values.astype(np.float32)


def nf4_packed(x):
    """The nearest level to each x / scale, by distance in double; the script stops where two are as near as rounding."""
    x = x.astype(np.float64).reshape(-1, NF4_BLOCK)
    scales = np.abs(x).max(axis=1).astype(np.float16)
    over = x / np.where(scales == 0, 1, scales).astype(np.float64)[:, None]
    distances = np.abs(over[:, :, None] - nf4_levels()[None, None, :])
    two = np.sort(distances, axis=2)[:, :, :2]
    assert (two[:, :, 1] - two[:, :, 0] > 1e-6).all(), "a tie"
    return nf4_bytes(scales, np.argmin(distances, axis=2))


def numbers(rng):
    x = rng.standard_normal((64, 32)) * 10.0 ** rng.uniform(-5, 3, (64, 1))
    x[0] = 0
    x[1] = np.arange(-16, 16) * 0.5  # halves between levels, and a tie of magnitudes below
    x[2, :2] = x[2].max() * 4 * np.array([-1, 1])
    x[3, :2] = x[3].max() * 4 * np.array([1, -1])
    x[4] = np.abs(x[4])
    x[5:21] = ((np.arange(16 * 32) - 256) / 8).reshape(16, 32)  # many products just below a level
    return x.astype(np.float32).ravel()


def main():
    rng = np.random.default_rng(SEED)
    tensors = {}
    for name in FORMATS:
        blocks = random_blocks(rng, name)
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = quants.dequantize(blocks, gguf.GGMLQuantizationType[name]).ravel()
    x = numbers(rng)
    tensors["x"] = x
    for name in ("Q8_0", "Q4_0"):
        tensors[f"x.{name}"] = quants.quantize(x.reshape(64, 32), gguf.GGMLQuantizationType[name])
    tensors["NF4.blocks"], values = nf4_blocks(rng)
    tensors["NF4.values"] = values.ravel()
    tensors["x.NF4"] = nf4_packed(x)
    write("blocks", {key: torch.from_numpy(np.ascontiguousarray(t)) for key, t in tensors.items()}, __file__, SEED, gguf=version())


def version():
    from importlib.metadata import version as of

    return of("gguf")


if __name__ == "__main__":
    main()
