"""The rounding of float32 alone, for each operator case: the worst relative L2 error of its gradients when the written-out
backward pass (serial and chunked) runs in float32.

    python3 tests/reference/floor.py DIR/ops-grads.safetensors      DIR is where golden_train.py wrote
"""
import json
import sys

import torch
from safetensors import safe_open

import backward as bw

if len(sys.argv) != 2:
    sys.exit("usage: python3 floor.py DIR/ops-grads.safetensors")
torch.set_num_threads(1)
cases, meta = {}, {}
with safe_open(sys.argv[1], "pt") as f:
    meta = {k: json.loads(v) for k, v in (f.metadata() or {}).items()}
    for k in f.keys():
        case, name = k.split(".", 1)
        cases.setdefault(case, {})[name] = f.get_tensor(k)


def err(names, mine, c):
    out = []
    for n, m in zip(names, mine):
        right = c.get("grad_" + n)
        if right is not None:
            out.append(((m.double() - right.double()).norm() / right.double().norm().clamp_min(1e-30)).item())
    return max(out)


rows = []
for name, c in cases.items():
    g = lambda k, like=None: c[k] if k in c else torch.zeros_like(like)
    if name.startswith("delta_rule"):
        H, K = c["q"].shape[1:]
        S0 = c.get("state_in", torch.zeros(H, K, K))
        up = c["d_out"], c.get("d_state_out", torch.zeros(H, K, K))
        a = [err(("q", "k", "v", "beta", "state_in"), fn(c["q"], c["k"], c["v"], c["beta"], S0, *up), c) for fn in (bw.delta_rule_serial, bw.delta_rule_chunked)]
        rows.append((name, f"serial {a[0]:.0e} chunked {a[1]:.0e}"))
    elif name.startswith("ssd"):
        H, P = c["x"].shape[1:]
        N = c["B"].shape[1]
        h0 = c.get("state_in", torch.zeros(H, P, N))
        up = c["d_out"], c.get("d_state_out", torch.zeros(H, P, N))
        names = ("x", "dt", "A", "B", "C", "D", "state_in")
        each = []
        for fn in (bw.ssd_serial, bw.ssd_chunked):
            mine = fn(c["x"], c["dt"], c["A"], c["B"], c["C"], c["D"], h0, *up)
            one = {n: err((n,), (m,), c) for n, m in zip(names, mine) if "grad_" + n in c}
            worst = max(one, key=one.get)
            each.append(f"{one[worst]:.0e} ({worst})")
        rows.append((name, f"serial {each[0]} chunked {each[1]}"))
    elif name.startswith("attention_t"):
        rows.append((name, f"{err(('q', 'k', 'v'), bw.attention(c['q'], c['k'], c['v'], meta[name]['window'], c['d_out']), c):.0e}"))
    elif name.startswith("head"):
        _, dh, dE = bw.head_loss(c["h"], c["weight"], c["targets"].long(), "plain" not in name)
        rows.append((name, f"{err(('h', 'weight'), (dh, dE), c):.0e}"))
    elif name.startswith("conv_silu"):
        dx, dw, db, dp = bw.conv_silu(c["x"], c["weight"], c.get("bias"), c["past"], c["d_out"])
        rows.append((name, f"{err(('x', 'weight', 'bias', 'past'), (dx, dw, db, dp), c):.0e}"))
    elif name.startswith("l2norm"):
        rows.append((name, f"{err(('x',), (bw.l2norm(c['x'], c['d_out']),), c):.0e}"))
    elif name.startswith("rms_norm"):
        rows.append((name, f"{err(('x', 'weight'), bw.rms_norm(c['x'], c['weight'], c['d_out'], meta[name]['eps']), c):.0e}"))
    elif name.startswith("gated_norm"):
        rows.append((name, f"{err(('y', 'z', 'weight'), bw.gated_norm(c['y'], c['z'], c['weight'], c['d_out']), c):.0e}"))
    elif name.startswith("swiglu"):
        rows.append((name, f"{err(('gate', 'up'), bw.swiglu(c['gate'], c['up'], c['d_out']), c):.0e}"))
    elif name.startswith("relu2"):
        rows.append((name, f"{err(('up',), (bw.relu2(c['up'], c['d_out']),), c):.0e}"))
    elif name.startswith("adam"):
        h = meta[name]
        p, m, v = bw.adam(c["param"], c["grad"], c["m"], c["v"], h["step"], h["lr"], h["beta1"], h["beta2"], h["eps"], h["weight_decay"])
        rows.append((name, " ".join(f"{((a.double() - c[k].double()).norm() / c[k].double().norm()).item():.0e}" for a, k in ((p, "param_out"), (m, "m_out"), (v, "v_out")))))
for name, said in rows:
    print(f"{name:34} {said}")
