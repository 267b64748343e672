#!/usr/bin/env bash
# The safetensors library does not write tensors in the order in which it gets them, nor by name: all tensors of the widest
# type come first. So in a checkpoint whose norms are f32 and whose matrices are f16, the norms of all layers lie in front of
# all matrices. One would have guessed that a file written layer by layer can be used layer by layer while it arrives.
. "$(dirname "$0")/lib.sh"
python_with safetensors==0.8.0 numpy==2.4.6
run venv/bin/python - <<'E'
import json
import struct
import numpy as np
from safetensors.numpy import save_file

tensors = {"embed": np.zeros(4, np.int8)}
for layer in range(2):
    tensors[f"layer{layer}.matrix"] = np.zeros(4, np.float16)
    tensors[f"layer{layer}.norm"] = np.zeros(4, np.float32)
save_file(tensors, "f")
raw = open("f", "rb").read()
header = json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])
print("given:  ", *tensors)
print("in file:", *sorted(header, key=lambda name: header[name]["data_offsets"]))
E
expect <<'E'
given:   embed layer0.matrix layer0.norm layer1.matrix layer1.norm
in file: layer0.norm layer1.norm layer0.matrix layer1.matrix embed
E
