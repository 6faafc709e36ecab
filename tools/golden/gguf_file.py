"""A small GGUF file by the `gguf` package's writer: every type of value, and tensors of several types.

Writes tests/golden/tiny.gguf; tests/io/gguf_test.cpp knows what is in it.
"""

import gguf
import numpy as np
from gguf import quants

from golden import FOLDER


def main():
    path = FOLDER / "tiny.gguf"
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint8("t.u8", 200)
    w.add_int8("t.i8", -100)
    w.add_uint16("t.u16", 60000)
    w.add_int16("t.i16", -30000)
    w.add_uint32("t.u32", 4_000_000_000)
    w.add_int32("t.i32", -2_000_000_000)
    w.add_uint64("t.u64", 2**63 + 5)
    w.add_int64("t.i64", -(2**62))
    w.add_float32("t.f32", 0.25)
    w.add_float64("t.f64", 1e300)
    w.add_bool("t.bool", True)
    w.add_string("t.string", "mezzo – half")
    w.add_array("t.strings", ["a", "", "日本"])
    w.add_array("t.ints", [1, -2, 3])
    w.add_array("t.floats", [0.5, -1.5])
    x = (np.arange(3 * 64, dtype=np.float32) - 96) / 8
    w.add_tensor("plain", x.reshape(3, 64))
    w.add_tensor("half", x.reshape(3, 64).astype(np.float16))
    w.add_tensor("odd", np.arange(5, dtype=np.float32))
    for kind in ("Q8_0", "Q4_0", "Q4_1"):
        q = gguf.GGMLQuantizationType[kind]
        w.add_tensor(f"blocks.{kind}", quants.quantize(x.reshape(3, 64), q), raw_dtype=q)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
