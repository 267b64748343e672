#!/usr/bin/env bash
# Whether safetensors.numpy can read a bf16 tensor depends on what the program imported before, for another purpose. Alone it
# raises a TypeError; once ml_dtypes is imported anywhere in the process (jax does), the same call on the same file succeeds,
# because the library asks numpy for a type of the name "bfloat16". The 8-bit floats stay unreadable: they are looked up as
# attributes of the numpy module, where ml_dtypes puts nothing.
. "$(dirname "$0")/lib.sh"
python_with safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
run venv/bin/python - <<'E'
import json
import struct
from safetensors.numpy import load_file

def read(dtype, data):
    header = json.dumps({"t": {"dtype": dtype, "shape": [2], "data_offsets": [0, len(data)]}}).encode()
    open("f", "wb").write(struct.pack("<Q", len(header)) + header + data)
    try:
        return f"{dtype}: {load_file('f')['t'].tolist()}"
    except Exception as error:
        return f"{dtype}: {type(error).__name__}"

one = bytes([0x80, 0x3F])
print("alone           ", read("BF16", one * 2), read("F8_E4M3", one))
import ml_dtypes
print("after the import", read("BF16", one * 2), read("F8_E4M3", one))
E
expect <<'E'
alone            BF16: TypeError F8_E4M3: AttributeError
after the import BF16: [1.0, 1.0] F8_E4M3: AttributeError
E
