"""GGUF's block formats as the `gguf` package's numpy code unpacks and packs them.

Writes tests/golden/blocks.safetensors:
  <format>.blocks, <format>.values    random blocks (u8) with finite scales, and their elements (f32)
  x, x.Q8_0, x.Q4_0                   numbers (f32), and the blocks they are packed into (u8)
"""

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
    write("blocks", {key: torch.from_numpy(np.ascontiguousarray(t)) for key, t in tensors.items()}, __file__, SEED, gguf=version())


def version():
    from importlib.metadata import version as of

    return of("gguf")


if __name__ == "__main__":
    main()
