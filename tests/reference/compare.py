"""Holds a folder that golden.py wrote against tests/golden.

    python3 tests/reference/compare.py DIR [--tolerance 5e-6]

The weights, ids and greedy tokens must be the same bits. A number may differ by the tolerance, relative to the largest number
of its tensor: another version of torch adds in another order. Says for each file what it found; the exit code is 1 if a file
is missing or differs by more.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from paths import GOLDEN


def distance(mine, theirs):
    """(largest difference over the largest number, whether the bits must be the same)."""
    exact = mine.dtype != torch.float32
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return float("inf"), exact
    if torch.equal(mine, theirs):
        return 0.0, exact
    a, b = mine.double(), theirs.double()
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item(), exact


def compare(mine, theirs, tolerance):
    """The worst distance of two safetensors files, and what is wrong."""
    a, b = load_file(mine), load_file(theirs)
    faults = [f"tensor {name} is in one file only" for name in sorted(set(a) ^ set(b))]
    worst, same = 0.0, 0
    for name in sorted(set(a) & set(b)):
        d, exact = distance(a[name], b[name])
        worst, same = max(worst, d), same + (d == 0)
        if d > (0 if exact else tolerance):
            faults.append(f"{name} differs by {d:.1e}")
    return f"{same} of {len(b)} tensors bit for bit, worst {worst:.1e}", faults


def main():
    p = argparse.ArgumentParser()
    p.add_argument("dir", type=Path)
    p.add_argument("--tolerance", type=float, default=5e-6)
    p.add_argument("--golden", type=Path, default=GOLDEN)
    a = p.parse_args()
    failed, files = 0, sorted(a.golden.rglob("*.safetensors"))
    for theirs in files:
        name = theirs.relative_to(a.golden)
        if not (a.dir / name).exists():
            said, faults = "missing", ["it was not written"]
        else:
            said, faults = compare(a.dir / name, theirs, a.tolerance)
        failed += bool(faults)
        print(f"{name}: {said}" + "".join(f"\n    {fault}" for fault in faults[:5]))
    texts = a.golden / "fables.json"
    if (a.dir / "fables.json").exists() and json.load(open(texts)) != json.load(open(a.dir / "fables.json")):
        print("fables.json: the texts differ")
        failed += 1
    print(f"{len(files)} files, {failed} of them differ")
    return 1 if failed or not files else 0


if __name__ == "__main__":
    sys.exit(main())
