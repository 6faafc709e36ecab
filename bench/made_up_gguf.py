#!/usr/bin/env python3
"""Writes a GGUF file of Llama 2's 7-billion shape with made-up Q4_0 weights: to measure what a step takes, not what it learns.

  bench/made_up_gguf.py OUT.gguf [--layers 32] [--width 4096] [--ffn 11008] [--heads 32] [--kv-heads 32] [--vocab 32000]
"""
import argparse
import os
import random
import struct

F32, Q4_0 = 0, 2  # tensor types
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5  # metadata types
ALIGNMENT = 32


def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def entry(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def array(key, kind, items):
    return entry(key, ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(items))


def byte_names():
    """GPT-2's printable names of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(others)})
    return [names[b] for b in range(256)]


def metadata(o):
    u32 = lambda key, n: entry(key, UINT32, struct.pack("<I", n))
    tokens = byte_names() + ["ab"] + [f"<unused{i}>" for i in range(o.vocab - 258)] + ["<|end|>"]
    kinds = [1] * 257 + [5] * (o.vocab - 258) + [3]  # normal, unused, control
    a, t = "llama.", "tokenizer.ggml."
    return [
        entry("general.architecture", STRING, string("llama")),
        entry("general.name", STRING, string("made up")),
        u32(a + "block_count", o.layers), u32(a + "context_length", 4096), u32(a + "embedding_length", o.width),
        u32(a + "feed_forward_length", o.ffn), u32(a + "attention.head_count", o.heads), u32(a + "attention.head_count_kv", o.kv_heads),
        u32(a + "rope.dimension_count", o.width // o.heads), u32(a + "vocab_size", o.vocab),
        entry(a + "attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        entry(a + "rope.freq_base", FLOAT32, struct.pack("<f", 10000)),
        entry(t + "model", STRING, string("gpt2")), entry(t + "pre", STRING, string("gpt-2")),
        array(t + "tokens", STRING, [string(s) for s in tokens]),
        array(t + "token_type", INT32, [struct.pack("<i", k) for k in kinds]),
        array(t + "merges", STRING, [string("a b")]),
        u32(t + "bos_token_id", o.vocab - 1), u32(t + "eos_token_id", o.vocab - 1),
    ]


def tensors(o):
    """(name, rows, columns); a vector has no rows."""
    kv = o.width // o.heads * o.kv_heads
    yield "token_embd.weight", o.vocab, o.width
    for i in range(o.layers):
        for name, rows, columns in (("attn_norm", 0, o.width), ("attn_q", o.width, o.width), ("attn_k", kv, o.width), ("attn_v", kv, o.width),
                                    ("attn_output", o.width, o.width), ("ffn_norm", 0, o.width), ("ffn_gate", o.ffn, o.width),
                                    ("ffn_up", o.ffn, o.width), ("ffn_down", o.width, o.ffn)):
            yield f"blk.{i}.{name}.weight", rows, columns
    yield "output_norm.weight", 0, o.width
    yield "output.weight", o.vocab, o.width


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    for name, n in (("layers", 32), ("width", 4096), ("ffn", 11008), ("heads", 32), ("kv-heads", 32), ("vocab", 32000)):
        p.add_argument("--" + name, type=int, default=n)
    o = p.parse_args()

    infos, offset, sizes = [], 0, []
    for name, rows, columns in tensors(o):
        size = rows * columns // 32 * 18 if rows else 4 * columns
        dims = (columns, rows) if rows else (columns,)
        infos.append(string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) +
                     struct.pack("<IQ", Q4_0 if rows else F32, offset))
        sizes.append((size, rows))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    entries = metadata(o)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos)

    # A block: a step as f16, 16 bytes of two 4-bit numbers each. The steps give weights of standard deviation 0.02 or so.
    random.seed(0)
    pool = b"".join(struct.pack("<e", 0.0043) + os.urandom(16) for _ in range(1 << 16))
    with open(o.out, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGNMENT))
        for size, rows in sizes:
            if not rows:
                f.write(struct.pack("<f", 1) * (size // 4))
            else:
                begin = random.randrange(1 << 15) * 18
                while size > 0:
                    piece = pool[begin:begin + size]
                    f.write(piece)
                    size -= len(piece)
                    begin = random.randrange(1 << 15) * 18
            f.write(bytes(-f.tell() % ALIGNMENT))


if __name__ == "__main__":
    main()
