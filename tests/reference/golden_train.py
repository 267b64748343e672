"""Golden data for training, computed in float64 and stored as float32.

    python3 tests/reference/golden_train.py --out DIR [--spec tests/reference/training.json] [--check]

A spec (JSON) holds the seed and all shapes: another spec makes another set. The files in DIR:

ops-grads.safetensors      every operator alone: `case.input`, `case.output`, `case.d_output` (upstream gradient),
                           `case.grad_input`; scalars and sizes are in the file's metadata under the case's name
NAME/                      a small random model: config.json, model.safetensors (bfloat16, as the loader reads it)
grads-NAME.safetensors     its mean cross-entropy loss and the gradient of every tensor, see `model_grads`
grads-fables.safetensors   the same for the trained model, of which only norms and some entries are kept
steps-NAME.safetensors     20 optimiser steps by two recipes, see `steps`; hyperparameters in steps-NAME.json

--check compares gradients with finite differences, with the token-by-token forms, with transformers' own modules where they
are installed, and tells what float32 and 16-bit operands do to the numbers, and what usual mistakes would do.
"""
import argparse
import json
import math
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import nemotron_flash as nf
from nemotron_flash import Config, NemotronFlash, delta_rule_recurrent, rms_norm, ssd_recurrent
from paths import FABLES, TRAINING_SPEC

READS = ("q_proj", "k_proj", "v_proj", "b_proj", "in_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head")
WRITES = ("o_proj", "out_proj", "down_proj")


def kind(name):
    """What weight normalisation does to a tensor: rows, columns, or nothing."""
    part = name.split(".")[-2] if "." in name else ""
    return "rows" if part in READS else "columns" if part in WRITES else "none"


@torch.no_grad()
def project(model):
    for name, p in model.named_parameters():
        which = kind(name)
        if which != "none":
            p.div_(p.norm(dim=1 if which == "rows" else 0, keepdim=True).clamp_min(1e-12))


# ------------------------------------------------------------------ operators

class Ops:
    def __init__(self, gen):
        self.gen, self.out, self.meta = gen, {}, {}

    def r(self, *s):
        return torch.randn(*s, generator=self.gen, dtype=torch.float64).float().double()

    def u(self, *s):
        return torch.rand(*s, generator=self.gen, dtype=torch.float64).float().double()

    def unit(self, t):
        return (t * torch.rsqrt(t.pow(2).sum(-1, keepdim=True) + 1e-6)).float().double()

    def put(self, case, **tensors):
        for k, v in tensors.items():
            self.out[f"{case}.{k}"] = (v.int() if not v.is_floating_point() else v.detach().float()).contiguous().clone()

    def case(self, name, fn, without=(), fixed=None, **inputs):
        """fn(**inputs, **fixed) gives a dict of outputs. No upstream gradient flows into outputs in `without`."""
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        outs = fn(**leaves, **(fixed or {}))
        total = 0
        for k, y in outs.items():
            if k not in without:
                d = self.r(*y.shape)
                total = total + (y * d).sum()
                self.put(name, **{f"d_{k}": d})
        total.backward()
        self.put(name, **inputs, **outs, **{f"grad_{k}": v.grad for k, v in leaves.items()})

    def module(self, name, layer, x, numbers, fresh=True):
        if fresh:
            spread(layer, self.gen)
        layer = layer.double()
        x = x.clone().requires_grad_()
        y = layer(x[None])
        y = (y[0] if isinstance(y, tuple) else y)[0]
        d = self.r(*y.shape)
        (y * d).sum().backward()
        self.put(name, x=x, out=y, d_out=d, grad_x=x.grad, **{k: p for k, p in layer.named_parameters()}, **{f"grad_{k}": p.grad for k, p in layer.named_parameters()})
        self.meta[name] = numbers


def conv_silu(x, weight, past, bias=None):
    C = x.shape[1]
    return {"out": F.silu(F.conv1d(torch.cat([past, x]).T[None], weight[:, None], bias, groups=C)[0].T)}


def delta(q, k, v, beta, state_in=None):
    o, S = delta_rule_recurrent(*(t[None] for t in (q, k, v, beta)), None if state_in is None else state_in[None])
    return {"out": o[0], "state_out": S[0]}


def ssd(x, dt, A, B, C, D, state_in=None):
    y, h = ssd_recurrent(x[None], dt[None], A, B[None], C[None], D, None if state_in is None else state_in[None])
    return {"out": y[0], "state_out": h[0]}


def attention(q, k, v, window):
    T, H, K = q.shape
    i = torch.arange(T)
    seen = i[None] <= i[:, None]
    if window:
        seen = seen & (i[None] >= i[:, None] - window)
    k, v = (t.repeat_interleave(H // t.shape[1], 1) for t in (k, v))
    s = torch.einsum("ihk,jhk->hij", q, k) * K ** -0.5
    s = s.masked_fill(~seen, -math.inf)
    return {"out": torch.einsum("hij,jhv->ihv", s.softmax(-1), v)}, s.logsumexp(-1).T


def head(h, weight, targets, divide):
    logits = h @ weight.T
    if divide:
        logits = logits / weight.norm(dim=1)
    return {"loss": F.cross_entropy(logits, targets, ignore_index=-1)}, logits.logsumexp(-1)


def operators(gen, spec):
    o = Ops(gen)
    r, u = o.r, o.u
    for T, C, bias in spec["conv"]:
        o.case(f"conv_silu_t{T}_c{C}{'_bias' if bias else ''}", conv_silu, x=r(T, C), weight=r(C, 4) * 0.5, past=r(3, C), **({"bias": r(C) * 0.1} if bias else {}))
    for T, H, K in spec["l2norm"]:
        x = r(T, H, K)
        x[0, 0] = 0                                      # a row of zeros, and one whose length is near sqrt(eps)
        x[-1, -1] *= 1e-4
        o.case(f"l2norm_t{T}_k{K}", lambda x: {"out": x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)}, x=x)
    for T, H, K, state in spec["delta"]:
        more = {"state_in": r(H, K, K) * 0.3} if state else {}
        o.case(f"delta_rule_t{T}_k{K}{'_state' if state else ''}", delta, without=() if state else ("state_out",),
               q=o.unit(r(T, H, K)), k=o.unit(r(T, H, K)), v=r(T, H, K), beta=u(T, H), **more)
    T, H, K = spec["delta_hard"]                         # all keys nearly alike and beta near 1: the triangular matrix is far from I
    o.case(f"delta_rule_hard_t{T}_k{K}", delta, q=o.unit(r(T, H, K)), k=o.unit(r(1, H, K) + 0.05 * r(T, H, K)), v=r(T, H, K), beta=0.9 + 0.1 * u(T, H), state_in=r(H, K, K))
    for T, H, P, N, state in spec["ssd"]:
        more = {"state_in": r(H, P, N) * 0.3} if state else {}
        o.case(f"ssd_t{T}_p{P}_n{N}{'_state' if state else ''}", ssd, without=() if state else ("state_out",),
               x=r(T, H, P), dt=u(T, H) * 0.2, A=-u(H) * 8, B=r(T, N), C=r(T, N), D=u(H), **more)
    T, H, P, N = spec["ssd_hard"]                        # decays from 1 to exp(-80) a step, in one sequence
    A = -torch.logspace(-3, math.log10(16), H, dtype=torch.float64).float().double()
    o.case(f"ssd_hard_t{T}_p{P}_n{N}", ssd, x=r(T, H, P), dt=(u(T, H).pow(4) * 5).float().double(), A=A, B=r(T, N), C=r(T, N), D=u(H), state_in=r(H, P, N))
    for T, H, G, K, window, scale in spec["attention"]:
        name = f"attention_t{T}_h{H}_g{G}_k{K}_w{window}{'_peaked' if scale > 1 else ''}"
        q, k, v = (r(T, H, K) * scale).float().double(), r(T, G, K), r(T, G, K)
        o.case(name, lambda q, k, v: attention(q, k, v, window)[0], q=q, k=k, v=v)
        o.put(name, lse=attention(q, k, v, window)[1])
        o.meta[name] = {"window": window, "scale": K ** -0.5}
    for T, W, eps in spec["rms_norm"]:
        x = r(T, W) * 4
        x[0] *= 1e-4
        o.case(f"rms_norm_t{T}_w{W}", lambda x, weight: {"out": rms_norm(x, weight, eps)}, x=x.float().double(), weight=u(W) + 0.5)
        o.meta[f"rms_norm_t{T}_w{W}"] = {"eps": eps}
        o.case(f"gated_norm_t{T}_w{W}", lambda y, z, weight: {"out": rms_norm(y * F.silu(z), weight, 1e-5)}, y=r(T, W), z=r(T, W) * 2, weight=u(W) + 0.5)
    for T, W in spec["ffn"]:
        o.case(f"swiglu_t{T}_w{W}", lambda gate, up: {"out": F.silu(gate) * up}, gate=r(T, W) * 2, up=r(T, W))
        o.case(f"relu2_t{T}_w{W}", lambda up: {"out": F.relu(up).square()}, up=r(T, W))
    for T, V, W, divide, scale in spec["head"]:
        name = f"head_t{T}_v{V}_w{W}{'' if divide else '_plain'}{'_peaked' if scale > 1 else ''}"
        t = torch.randint(0, V, (T,), generator=gen)
        t[torch.randperm(T, generator=gen)[: T // 5]] = -1
        h, w = (r(T, W) * scale).float().double(), (r(V, W) * W ** -0.5 * (0.5 + u(V, 1))).float().double()
        hh, ww = h.clone().requires_grad_(), w.clone().requires_grad_()
        loss, lse = head(hh, ww, t, divide)
        loss["loss"].backward()
        o.put(name, h=h, weight=w, targets=t, loss=loss["loss"].reshape(1), lse=lse, grad_h=hh.grad, grad_weight=ww.grad)
    for T, V, W, M in spec["embed"]:
        ids = torch.randint(0, V, (T,), generator=gen)
        table, meta = r(V, W).requires_grad_(), r(M, W).requires_grad_()
        x = torch.cat([meta, table[ids]])
        d = r(M + T, W)
        (x * d).sum().backward()
        o.put(f"embed_t{T}_v{V}_w{W}_m{M}", ids=ids, table=table, memory=meta, out=x, d_out=d, grad_table=table.grad, grad_memory=meta.grad)
    for n, step, decay in spec["adam"]:
        name = f"adam_n{n}_step{step}{'_decay' if decay else ''}"
        lr, b1, b2, eps = 2e-3, 0.9, 0.95, 1e-8
        p, g, m, v = r(n), r(n) * 1e-3, r(n) * 1e-3, u(n) * 1e-6
        g[: n // 8], m[: n // 8], v[: n // 8] = 0, 0, 0      # entries that never had a gradient stay, but for decay
        if step == 1:
            m, v = torch.zeros_like(m), torch.zeros_like(v)
        g, m, v = (t.float().double() for t in (g, m, v))
        m2, v2 = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p2 = p * (1 - lr * decay) - lr / (1 - b1 ** step) * m2 / (v2.sqrt() / math.sqrt(1 - b2 ** step) + eps)
        o.put(name, param=p, grad=g, m=m, v=v, param_out=p2, m_out=m2, v_out=v2)
        o.meta[name] = {"lr": lr, "beta1": b1, "beta2": b2, "eps": eps, "weight_decay": decay, "step": step}
    for R, W in spec["project"]:
        w = r(R, W) * (0.1 + u(R, 1) * 3)
        w = w.float().double()
        o.put(f"project_{R}x{W}", weight=w, rows=w / w.norm(dim=1, keepdim=True), columns=w / w.norm(dim=0, keepdim=True))
    for n in spec["clip"]:
        g = r(n)
        norm = g.norm()
        o.put(f"clip_n{n}", grad=g, norm=norm.reshape(1), factor=torch.clamp(1.0 / (norm + 1e-6), max=1.0).reshape(1))
    L = spec["layer"]
    c = Config(**L["config"])
    D = c.hidden_size
    for name, make in (("deltanet_layer", lambda: nf.DeltaNet(c)), ("mamba2_layer", lambda: nf.Mamba2(c)), ("attention_layer", lambda: nf.Attention(c, 0)), ("ffn_layer", lambda: nf.FFN(c))):
        o.module(name, make(), r(L["rows"], D), L["config"])
    over = dict(L["config"], sliding_window=L["window"], global_attn_idx=[], kq_norm="rms", rope_type=None)
    o.module("attention_window_layer", nf.Attention(Config(**over), 0), r(L["rows"], D), over)
    over = dict(L["config"], mlp_hidden_act="relu2")
    o.module("ffn_relu2_layer", nf.FFN(Config(**over)), r(L["rows"], D), over)
    return o


# ------------------------------------------------------------------ models

def spread(model, gen):
    """Weights that exercise every path: unit-scale matrices, norms away from one. Exact in bfloat16."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2 and "conv1d" not in name:
                p.copy_(torch.randn(p.shape, generator=gen) * p.shape[-1] ** -0.5)
            elif "conv1d.weight" in name:
                p.copy_(torch.randn(p.shape, generator=gen) * 0.5)
            elif "norm" in name or name.endswith(".D"):
                p.copy_(torch.rand(p.shape, generator=gen) + 0.5)
            elif "conv1d.bias" in name:
                p.copy_(torch.randn(p.shape, generator=gen) * 0.1)
            elif name.endswith("dt_bias"):
                p.copy_(torch.rand(p.shape, generator=gen) * 3 - 4)
        for name, p in model.named_parameters():
            p.copy_(p.bfloat16().float())


def text_like(n, vocab, gen):
    """Token ids with something to learn: a cycle of 24 tokens whose place jumps now and then."""
    cycle = (torch.randperm(vocab - 3, generator=gen) + 3)[:24]
    at, ids = 0, []
    for _ in range(n):
        jump = torch.rand(1, generator=gen).item() < 0.15
        at = int(torch.randint(0, 24, (1,), generator=gen)) if jump else (at + 1) % 24
        ids.append(int(cycle[at]))
    return torch.tensor(ids)


def loss_of(model, sequences, mask=None, keep=None):
    """Mean over all targets of all sequences together. Each sequence runs alone, from position 0, behind its own meta tokens."""
    total, count = 0, 0
    for i, ids in enumerate(sequences):
        targets = ids[1:].clone()
        if mask is not None:
            targets[mask[i]] = -1
        logits, _ = model(ids[None, :-1])
        total = total + F.cross_entropy(logits[0], targets, ignore_index=-1, reduction="sum")
        count += int((targets >= 0).sum())
    return total / count


def save_model(folder, c, model):
    os.makedirs(folder, exist_ok=True)
    drop = "lm_head.weight" if c.tie_word_embeddings else ""
    save_file({k: v.bfloat16().contiguous() for k, v in model.state_dict().items() if k != drop}, f"{folder}/model.safetensors", metadata={"format": "pt"})
    full = dict(c.__dict__, architectures=["NemotronFlashForCausalLM"], model_type="nemotron_flash", num_hidden_layers=len(c.layer_types), bos_token_id=1, eos_token_id=2, pad_token_id=0, torch_dtype="bfloat16")
    json.dump(full, open(f"{folder}/config.json", "w"), indent=1)


def hooks(model, store):
    """Residual stream in front of every layer and behind the last, of all sequences one after the other."""
    handles = []

    def note(key):
        def hook(module, inputs, output=None):
            x = inputs[0]
            if x.requires_grad:
                x.retain_grad()
            store.setdefault(key, []).append(x)
        return hook
    for i, layer in enumerate(model.model.layers):
        handles.append(layer.register_forward_pre_hook(note(f"x.{i}")))
    handles.append(model.model.final_layernorm.register_forward_pre_hook(note(f"x.{len(model.model.layers)}")))
    return handles


def model_grads(model, lens, masked, gen, inner):
    """ids I32 [sum of lens]: inputs of all sequences in a row; targets I32 likewise, -1 where there is none; lens I32; loss F32 [1];
    grad.NAME F32: gradient of the mean loss, the two uses of a tied embedding added. With `inner`: x.I and dx.I F32
    [sum of (meta tokens + lens), hidden]: the residual stream in front of layer I and its gradient; the last is in front of the
    final norm."""
    c = model.config
    model.double()
    seqs = [torch.randint(3, c.vocab_size, (n + 1,), generator=gen) for n in lens]
    mask = [torch.rand(n, generator=gen) < masked for n in lens] if masked else None
    store = {}
    handles = hooks(model, store) if inner else []
    loss = loss_of(model, seqs, mask)
    loss.backward()
    [h.remove() for h in handles]
    targets = torch.cat([s[1:] for s in seqs])
    if masked:
        targets[torch.cat(mask)] = -1
    out = {"ids": torch.cat([s[:-1] for s in seqs]).int(), "targets": targets.int(), "lens": torch.tensor(lens).int(), "loss": loss.detach().float().reshape(1)}
    out |= {f"grad.{n}": p.grad.float().contiguous() for n, p in model.named_parameters()}
    for k, xs in store.items():
        out[k] = torch.cat([x.detach()[0] for x in xs]).float()
        out["d" + k] = torch.cat([x.grad[0] for x in xs]).float()
    return out, seqs, mask


def fables_grads(folder, text, gen, samples=64):
    """As model_grads for the trained model; of each gradient its length (norm.NAME F32 [1]) and `samples` entries: the largest
    half of them and random others (at.NAME I32, flat index; grad.NAME F32)."""
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(f"{folder}/tokenizer.json")
    model = NemotronFlash(Config.load(f"{folder}/config.json"))
    model.load_state_dict({k: v.float() for k, v in load_file(f"{folder}/model.safetensors").items()}, strict=False)
    model.double()
    seqs = [torch.tensor(tok.encode(t, add_special_tokens=False).ids) for t in text]
    loss = loss_of(model, seqs)
    loss.backward()
    out = {"ids": torch.cat([s[:-1] for s in seqs]).int(), "targets": torch.cat([s[1:] for s in seqs]).int(), "lens": torch.tensor([len(s) - 1 for s in seqs]).int(), "loss": loss.detach().float().reshape(1)}
    for n, p in model.named_parameters():
        g = p.grad.flatten()
        k = min(samples, g.numel())
        at = torch.cat([g.abs().topk(k // 2).indices, torch.randperm(g.numel(), generator=gen)[: k - k // 2]])
        out[f"norm.{n}"], out[f"at.{n}"], out[f"grad.{n}"] = g.norm().float().reshape(1), at.int(), g[at].float()
    return out, model, seqs


# ------------------------------------------------------------------ optimiser steps

def schedule(h):
    T = h["steps"]
    return [h["lr"] * min(1, (t + 1) / h["warmup"]) * (h["floor"] + (1 - h["floor"]) * 0.5 * (1 + math.cos(math.pi * t / T))) for t in range(T)]


def train(c, init, batches, h, recipe, dtype=torch.float64, wrap=None):
    model = NemotronFlash(c).to(dtype)
    model.load_state_dict({k: v.to(dtype) for k, v in init.items()}, strict=False)
    paper = recipe == "paper"
    decayed = [p for n, p in model.named_parameters() if kind(n) != "none"]
    rest = [p for n, p in model.named_parameters() if kind(n) == "none"]
    opt = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.0 if paper else h["weight_decay"]}, {"params": rest, "weight_decay": 0.0}], lr=h["lr"], betas=(h["beta1"], h["beta2"]), eps=h["eps"])
    losses, norms, first = [], [], None
    for lr, seqs in zip(schedule(h), batches):
        for g in opt.param_groups:
            g["lr"] = lr
        loss = loss_of(model, seqs)
        opt.zero_grad(set_to_none=True)
        (loss if wrap is None else wrap(loss)).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), h["clip"]).item())
        opt.step()
        if paper:
            project(model)
        losses.append(loss.item())
        if first is None:
            first = {k: v.detach().clone() for k, v in model.named_parameters()}
    with torch.no_grad():
        after = loss_of(model, batches[-1]).item()
    return losses + [after], norms, first, dict(model.named_parameters())


def steps(spec, gen):
    """init.NAME F32: weights before the first step, normalised already, the same for both recipes. ids I32 [steps, sequences,
    length + 1]: inputs are all but the last of a sequence, targets all but the first. For each RECIPE of adamw and paper:
    RECIPE.loss F32 [steps + 1]: before each step, and of the last batch after the last step; RECIPE.grad_norm F32 [steps]: global
    length before clipping; RECIPE.final.NAME F32: weights after the last step; paper.first.NAME F32: after the first."""
    c, h = Config(**spec["config"]), spec["hyper"]
    model = NemotronFlash(c)
    spread(model, gen)
    project(model)
    init = {k: v.detach().float().clone() for k, v in model.named_parameters()}
    B, T = spec["batch"]
    stream = text_like(h["steps"] * B * (T + 1), c.vocab_size, gen).view(h["steps"], B, T + 1)
    batches = [list(step) for step in stream]
    out = {f"init.{k}": v.contiguous() for k, v in init.items()}
    out["ids"] = torch.stack([torch.stack(b) for b in batches]).int()
    out["lr"] = torch.tensor(schedule(h), dtype=torch.float32)
    for recipe in ("adamw", "paper"):
        losses, norms, first, final = train(c, init, batches, h, recipe)
        out[f"{recipe}.loss"], out[f"{recipe}.grad_norm"] = torch.tensor(losses).float(), torch.tensor(norms).float()
        if recipe == "paper":
            out |= {f"{recipe}.first.{k}": v.detach().float().contiguous() for k, v in first.items()}
        out |= {f"{recipe}.final.{k}": v.detach().float().contiguous() for k, v in final.items()}
    groups = {w: [n for n in init if kind(n) == w] for w in ("rows", "columns", "none")}
    return out, {"config": spec["config"], "hyper": h, "batch": {"sequences": B, "length": T}, "tensors": groups}, (c, init, batches, h)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", required=True)
    a.add_argument("--spec", default=TRAINING_SPEC)
    a.add_argument("--fables", default=FABLES, help="folder of the trained model")
    a.add_argument("--check", nargs="?", const="finite forms others precision mistakes steps", help="all checks, or those named")
    a = a.parse_args()
    torch.set_num_threads(1)
    spec = json.load(open(a.spec))
    gen = torch.Generator().manual_seed(spec["seed"])
    torch.manual_seed(spec["seed"])
    os.makedirs(a.out, exist_ok=True)
    o = operators(gen, spec["ops"])
    save_file(o.out, f"{a.out}/ops-grads.safetensors", metadata={k: json.dumps(v) for k, v in o.meta.items()})
    print(len({k.split(".")[0] for k in o.out}), "operator cases")
    models = {}
    for name, m in spec["models"].items():
        c = Config(**m["config"])
        model = NemotronFlash(c)
        spread(model, gen)
        save_model(f"{a.out}/{name}", c, model)
        out, seqs, mask = model_grads(model, m["lens"], m.get("masked", 0), gen, m.get("inner", False))
        save_file(out, f"{a.out}/grads-{name}.safetensors")
        models[name] = (model, seqs, mask)
        print(name, sum(p.numel() for p in model.parameters()), "parameters, loss", out["loss"].item())
    fables = None
    if a.fables:
        out, *fables = fables_grads(a.fables, spec["fables"], gen)
        save_file(out, f"{a.out}/grads-fables.safetensors")
        print("fables loss", out["loss"].item(), "tokens", out["lens"].tolist())
    runs = {}
    for name, s in spec["steps"].items():
        out, said, runs[name] = steps(s, gen)
        save_file(out, f"{a.out}/steps-{name}.safetensors")
        json.dump(said, open(f"{a.out}/steps-{name}.json", "w"), indent=1)
        for recipe in ("adamw", "paper"):
            print("steps", name, recipe, " ".join(f"{x:.4f}" for x in out[f"{recipe}.loss"][::4].tolist()))
    if a.check:
        import checks
        checks.run(models, fables, runs, a.check)


if __name__ == "__main__":
    main()
