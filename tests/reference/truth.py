"""Small training runs on the CPU that another implementation can repeat exactly: the order of the data and the first weights come
from integer hashes, not from torch's generator.

    python3 tests/reference/truth.py --ids ids.npy --out truth.json [--steps 300]

The ids of the text are written into ids.npy the first time and read from there afterwards.

hash(x) is splitmix64's finaliser of x + 0x9E3779B97F4A7C15 (all modulo 2^64).
First weights: stream = fnv1a64(tensor name) xor hash(seed); element i (row-major) is u = (hash(stream + i) >> 40) / 2^24, and the
weight (u - 0.5) * sqrt(12) * std in float64, rounded to float32. std: hidden^-0.5 for matrices, 0.02 for memory_tokens. Convolution
weights (u - 0.5). Convolution bias 0, norms and D 1, A_log = ln(1..H), dt_bias = inverse softplus of dt spaced evenly in its
logarithm from 0.001 to 0.1 (one head: 0.01). Then, with weight normalisation, matrices are projected once.
Data: ids of all books, each cut at the last blank line before 97 % of its characters: in front of it training, behind it held out, `<|endoftext|>`
behind either part. Sequence b of step s begins at hash(seed * 2^40 + s * 2^16 + b) mod (n - length - 1) of the training ids.
Held out: 64 windows of length + 1 ids, window i from floor(i * (m - length - 1) / 63) of the held-out ids.
"""
import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

from golden_train import kind, project
from nemotron_flash import Config, NemotronFlash
from paths import FABLES, TEXT

M64 = (1 << 64) - 1
BASE = dict(vocab_size=4096, hidden_size=128, num_attention_heads=4, num_key_value_heads=1, num_memory_tokens=8, mamba_d_state=64, mamba2_headdim=32, ffn_expand_ratio=3.0,
            rope_type="ntk", max_position_embeddings=4096, orig_max_position_embeddings=1024)
STACKS = {
    "paper order": "deltanet f m2 f a f m2 f",
    "mixers first": "deltanet m2 a m2 f f f f",
    "ffn first": "f f f f deltanet m2 a m2",
    "attention only": "a f a f a f a f",
}


def mix(x):
    x = np.asarray(x, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def fnv(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & M64
    return h


@torch.no_grad()
def first_weights(model, seed):
    D = model.config.hidden_size
    for name, p in model.named_parameters():
        def uniform():
            stream = np.uint64(fnv(name)) ^ mix(seed)
            with np.errstate(over="ignore"):
                u = (mix(stream + np.arange(p.numel(), dtype=np.uint64)) >> np.uint64(40)).astype(np.float64) / 2 ** 24
            return torch.from_numpy(u).view(p.shape) - 0.5
        last = name.split(".")[-1]
        if kind(name) != "none":
            p.copy_(uniform() * (math.sqrt(12) * D ** -0.5))
        elif last == "memory_tokens":
            p.copy_(uniform() * (math.sqrt(12) * 0.02))
        elif "conv1d" in name:
            p.copy_(uniform() if last == "weight" else torch.zeros(p.shape))
        elif last == "A_log":
            p.copy_(torch.arange(1, p.numel() + 1, dtype=torch.float64).log())
        elif last == "dt_bias":
            H = p.numel()
            dt = torch.exp(torch.linspace(math.log(1e-3), math.log(1e-1), H, dtype=torch.float64)) if H > 1 else torch.tensor([0.01], dtype=torch.float64)
            p.copy_(dt + torch.log(-torch.expm1(-dt)))
        else:
            p.fill_(1)


def ids_of(a):
    if not os.path.exists(a.ids):
        import lzma
        from tokenizers import Tokenizer
        tok = Tokenizer.from_file(a.tokenizer)
        end = tok.token_to_id("<|endoftext|>")
        train, valid = [], []
        for b in (b.strip() for b in lzma.open(a.text, "rt").read().split("<|endoftext|>")):
            if b:
                cut = b.rfind("\n\n", 0, int(len(b) * 0.97))
                train += tok.encode(b[:cut], add_special_tokens=False).ids + [end]
                valid += tok.encode(b[cut:], add_special_tokens=False).ids + [end]
        np.save(a.ids, np.array([len(train)] + train + valid, dtype=np.int32))
    all = np.load(a.ids)
    n = int(all[0])
    return torch.from_numpy(all[1:1 + n].astype(np.int64)), torch.from_numpy(all[1 + n:].astype(np.int64))


def run(stack, seed, normalise, a, train, valid):
    torch.manual_seed(0)
    c = Config(**BASE, layer_types=STACKS[stack].split())
    model = NemotronFlash(c)
    first_weights(model, seed)
    if normalise:
        project(model)
    if a.perturb:                                                # what rounding alone can do: weights moved in their last bits
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + a.perturb * torch.randn(p.shape))
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    L, B = a.length, a.batch
    windows = torch.stack([valid[s: s + L + 1] for s in (i * (len(valid) - L - 1) // 63 for i in range(64))])

    def loss_of(ids):
        return F.cross_entropy(model(ids[:, :-1])[0].flatten(0, 1), ids[:, 1:].flatten())

    @torch.no_grad()
    def held_out():
        return sum(loss_of(w).item() * len(w) for w in windows.split(16)) / 64

    curve, held, cpu, wall = [], {}, 0.0, time.time()
    for step in range(a.steps):
        if step % a.every == 0:
            held[step] = round(held_out(), 5)
        t = time.process_time()
        at = [int(mix(np.uint64((seed << 40) + (step << 16) + b)) % np.uint64(len(train) - L - 1)) for b in range(B)]
        ids = torch.stack([train[s: s + L + 1] for s in at])
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step + 1) / a.warmup) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / a.steps)))
        loss = loss_of(ids)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if normalise:
            project(model)
        curve.append(round(loss.item(), 5))
        cpu += time.process_time() - t
    held[a.steps] = round(held_out(), 5)
    parameters = sum(p.numel() for p in model.parameters())
    return {"stack": stack, "blocks": STACKS[stack], "seed": seed, "weight_norm": normalise, "perturb": a.perturb, "parameters": parameters, "steps": a.steps, "batch": B, "length": L, "lr": a.lr,
            "held_out": held, "train": curve[:5] + curve[5::10], "tokens_per_cpu_second": round(a.steps * B * L / cpu), "tokens_per_wall_second": round(a.steps * B * L / (time.time() - wall))}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--ids", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--text", default=str(TEXT))
    p.add_argument("--tokenizer", default=str(FABLES / "tokenizer.json"))
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--length", type=int, default=128)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--warmup", type=int, default=20)
    p.add_argument("--every", type=int, default=100)
    p.add_argument("--perturb", type=float, default=0.0)
    p.add_argument("--operands", choices=("f16", "bf16"), help="round what matrices multiply, as checks.py does")
    p.add_argument("--only", help="stack:seed:weight_norm, comma separated")
    a = p.parse_args()
    torch.set_num_threads(1)
    train, valid = ids_of(a)
    print(f"train {len(train)} ids, held out {len(valid)}", flush=True)
    jobs = [("paper order", s, w) for s in (1, 2) for w in (True, False)] + [(k, s, True) for s in (1, 2) for k in ("mixers first", "attention only", "ffn first")]
    if a.only:
        jobs = [(k, int(s), w == "1") for k, s, w in (j.split(":") for j in a.only.split(","))]
    results = json.load(open(a.out)) if os.path.exists(a.out) else []
    for stack, seed, normalise in jobs:
        if a.operands:
            from checks import rounded
            with rounded(a.operands, *((16.0, float(a.batch * a.length)) if a.operands == "f16" else ())):
                r = dict(run(stack, seed, normalise, a, train, valid), operands=a.operands)
        else:
            r = run(stack, seed, normalise, a, train, valid)
        results.append(r)
        json.dump(results, open(a.out, "w"), indent=1)
        print(f"{stack:15} seed {seed} norm {normalise!s:5} {r['parameters']} parameters, held out {r['held_out']}, {r['tokens_per_cpu_second']} tokens/CPU s, {r['tokens_per_wall_second']} tokens/s", flush=True)


if __name__ == "__main__":
    main()
