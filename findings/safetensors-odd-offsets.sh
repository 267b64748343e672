#!/usr/bin/env bash
# A safetensors file may place f32 numbers at any byte, also at odd ones. The safetensors library pads its header with
# spaces to a multiple of 8 and sorts tensors by the width of their type, so that a mapped file can be read in place; mlx
# writes the header as it comes. One would have guessed that a format made for mapping promises alignment: casting the bytes
# of a mapped file to f32 works on every file of the one writer and on few files of the other.
. "$(dirname "$0")/lib.sh"
python_with mlx[cpu]==0.32.4 safetensors==0.8.0 numpy==2.4.6
run venv/bin/python - <<'E'
import struct
import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

def start(file):
    """Where the first tensor begins, in bytes from the file's start."""
    return 8 + struct.unpack("<Q", open(file, "rb").read(8))[0]

for writer, save in (("safetensors", lambda n: save_file({n: np.zeros(3, np.float32)}, "f.safetensors")), ("mlx", lambda n: mx.save_safetensors("f.safetensors", {n: mx.zeros(3)}))):
    ends = []
    for length in range(1, 9):
        save("a" * length)
        ends.append(start("f.safetensors") % 8)
    print(f"{writer}: data begins at these bytes modulo 8: {ends}")
E
expect <<'E'
safetensors: data begins at these bytes modulo 8: [0, 0, 0, 0, 0, 0, 0, 0]
mlx: data begins at these bytes modulo 8: [3, 4, 5, 6, 7, 0, 1, 2]
E
