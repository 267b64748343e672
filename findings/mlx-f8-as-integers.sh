#!/usr/bin/env bash
# mlx reads the 8-bit floats of a safetensors file (F8_E4M3) as unsigned integers, without a word: 1.0 arrives as 56. What it
# then saves says U8, so the type is gone for every later reader. One would have guessed an error, as for F8_E5M2, which it
# refuses by name.
. "$(dirname "$0")/lib.sh"
python_with mlx[cpu]==0.32.4
run venv/bin/python - <<'E'
import json
import struct
import mlx.core as mx

def header(file):
    raw = open(file, "rb").read()
    return json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])

def write(dtype):
    text = json.dumps({"t": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2]}}).encode()
    open("f.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + bytes([0x38, 0xB8]))    # 1 and -1 in E4M3

write("F8_E4M3")
t = mx.load("f.safetensors")["t"]
print("F8_E4M3 is read as", t.dtype, t.tolist())
mx.save_safetensors("g.safetensors", {"t": t})
print("and saved as", header("g.safetensors")["t"]["dtype"])
write("F8_E5M2")
try:
    print("F8_E5M2 is read as", mx.load("f.safetensors")["t"].dtype)
except Exception as error:
    print("F8_E5M2:", type(error).__name__)
E
expect <<'E'
F8_E4M3 is read as mlx.core.uint8 [56, 184]
and saved as U8
F8_E5M2: RuntimeError
E
