#!/usr/bin/env bash
# mlx's affine quantisation does not count up from a group's smallest number. It counts from the number of the largest
# magnitude, so about half of all scales are negative, and that number comes back bit for bit. One would have guessed
# bias = minimum and scale = (maximum - minimum) / 15, never below zero. A reader that keeps scales in an unsigned type,
# or takes their logarithm, fails on every second group.
. "$(dirname "$0")/lib.sh"
python_with mlx[cpu]==0.32.4 numpy==2.4.6
run venv/bin/python - <<'E'
import mlx.core as mx
import numpy as np

mx.random.seed(0)
w = mx.random.normal((256, 256))
for bits in (2, 4, 8):
    codes, scales, biases = mx.quantize(w, 64, bits)
    back = np.array(mx.dequantize(codes, scales, biases, 64, bits)).reshape(-1, 64)
    groups = np.array(w).reshape(-1, 64)
    rows, largest = np.arange(len(groups)), np.abs(groups).argmax(1)
    negative = (np.array(scales) < 0).mean()
    exact = (back[rows, largest] == groups[rows, largest]).mean()
    smallest = (np.array(biases).ravel() == groups.min(1)).mean()
    print(f"{bits} bits: negative scales {negative:.0%}, largest magnitude exact {exact:.0%}, bias is the minimum {smallest:.0%}")
E
expect <<'E'
2 bits: negative scales 52%, largest magnitude exact 100%, bias is the minimum 48%
4 bits: negative scales 52%, largest magnitude exact 100%, bias is the minimum 48%
8 bits: negative scales 52%, largest magnitude exact 100%, bias is the minimum 48%
E
