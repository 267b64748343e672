"""Plain PyTorch reference of the Nemotron-Flash forward pass (arXiv 2511.18890).

SPEC.md as a program: every operator in its chunked form (training and prefill) and in its
one-token recurrent form, with the parameter names of the published checkpoints. It is written
to be read, not to be fast. The golden files are made from it.

Shapes use B batch, T tokens, D hidden size, H heads, K key dim, V value dim, N state dim.
"""
import json
import math
from dataclasses import dataclass, field, fields

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab_size: int = 4096
    hidden_size: int = 256
    layer_types: list = field(default_factory=lambda: ["deltanet", "f", "m2", "f", "a", "f"])
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    ffn_expand_ratio: float | None = 3.0
    intermediate_size: int = 0
    mlp_hidden_act: str = "silu"
    mamba_d_state: int = 128
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba2_headdim: int = 64
    num_memory_tokens: int = 32
    rms_norm_eps: float = 1e-6
    rope: bool = True
    rope_type: str | None = None
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096
    orig_max_position_embeddings: int | None = None
    kq_norm: str = "none"
    attn_hidden_size: int = -1
    kq_head_dim: int = -1
    v_head_dim: int = -1
    sliding_window: int | None = None
    global_attn_idx: list | None = None
    tie_word_embeddings: bool = True

    @classmethod
    def load(cls, path):
        raw = json.load(open(path))
        return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})

    @property
    def ffn_dim(self):
        if self.ffn_expand_ratio is not None:
            return int(self.ffn_expand_ratio * self.hidden_size) // 128 * 128
        return self.intermediate_size


def wide(x):
    """At least float32: norms, gates and recurrent states are never computed in 16 bits."""
    return x if x.dtype == torch.float64 else x.float()


def rms_norm(x, weight, eps):
    w = wide(x)
    return (w * torch.rsqrt(w.pow(2).mean(-1, keepdim=True) + eps) * weight.to(w.dtype)).to(x.dtype)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps)


class CausalConv1d(nn.Conv1d):
    """Depthwise causal convolution over time. x: (B, T, C). `state` holds the last k-1 inputs."""

    def __init__(self, channels, kernel, bias):
        super().__init__(channels, channels, kernel, groups=channels, bias=bias)

    def forward(self, x, state=None):
        k = self.kernel_size[0]
        past = x.new_zeros(x.shape[0], k - 1, x.shape[2]) if state is None else state
        full = torch.cat([past, x], 1)
        y = F.conv1d(full.transpose(1, 2), self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype), groups=self.groups)
        return y.transpose(1, 2), full[:, full.shape[1] - (k - 1):]


# ---------------------------------------------------------------- DeltaNet

def delta_rule_recurrent(q, k, v, beta, S=None):
    """One token at a time. q, k: (B, T, H, K), v: (B, T, H, V), beta: (B, T, H); S: (B, H, K, V)."""
    B, T, H, K = q.shape
    q = q * K ** -0.5
    S = q.new_zeros(B, H, K, v.shape[-1]) if S is None else S
    out = []
    for t in range(T):
        kt, vt, bt = k[:, t], v[:, t], beta[:, t]
        err = vt - torch.einsum("bhk,bhkv->bhv", kt, S)
        S = S + torch.einsum("bhk,bhv->bhkv", kt * bt[..., None], err)
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], S))
    return torch.stack(out, 1), S


def delta_rule_chunked(q, k, v, beta, S=None, C=64):
    """The same map through the WY form: inside a chunk everything is a matrix product,
    and only the chunk-to-chunk state is sequential."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    pad = (-T) % C
    if pad:
        q, k, v = (F.pad(x, (0, 0, 0, 0, 0, pad)) for x in (q, k, v))
        beta = F.pad(beta, (0, 0, 0, pad))
    n = (T + pad) // C
    q, k, v = (x.reshape(B, n, C, H, -1).permute(0, 3, 1, 2, 4) for x in (q * K ** -0.5, k, v))
    beta = beta.reshape(B, n, C, H).permute(0, 3, 1, 2)
    strict = torch.tril(torch.ones(C, C, device=q.device, dtype=q.dtype), -1)
    causal = torch.tril(torch.ones(C, C, device=q.device, dtype=q.dtype))
    A = (beta[..., None] * k) @ k.transpose(-1, -2) * strict + torch.eye(C, device=q.device, dtype=q.dtype)
    WU = torch.linalg.solve_triangular(A, beta[..., None] * torch.cat([k, v], -1), upper=False, unitriangular=True)
    W, U = WU[..., :K], WU[..., K:]
    attn = q @ k.transpose(-1, -2) * causal
    S = q.new_zeros(B, H, K, V) if S is None else S
    out = []
    for i in range(n):
        u = U[:, :, i] - W[:, :, i] @ S
        out.append(q[:, :, i] @ S + attn[:, :, i] @ u)
        S = S + k[:, :, i].transpose(-1, -2) @ u
    o = torch.stack(out, 2).permute(0, 2, 3, 1, 4).reshape(B, n * C, H, V)
    return o[:, :T], S


class DeltaNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        D, self.H = c.hidden_size, c.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(D, D, bias=False) for _ in range(3))
        self.b_proj = nn.Linear(D, self.H, bias=False)
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (CausalConv1d(D, 4, False) for _ in range(3))
        self.o_norm = RMSNorm(D // self.H, 1e-5)
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(self, x, cache=None, chunked=True):
        B, T, D = x.shape
        cq, ck, cv, S = cache if cache is not None else (None,) * 4
        q, cq = self.q_conv1d(self.q_proj(x), cq)
        k, ck = self.k_conv1d(self.k_proj(x), ck)
        v, cv = self.v_conv1d(self.v_proj(x), cv)
        q, k, v = (wide(F.silu(t).view(B, T, self.H, -1)) for t in (q, k, v))
        q, k = (t * torch.rsqrt(t.pow(2).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        beta = wide(self.b_proj(x)).sigmoid()
        rule = delta_rule_chunked if chunked else delta_rule_recurrent
        o, S = rule(q, k, v, beta, S)
        y = self.o_proj(self.o_norm(o.to(x.dtype)).reshape(B, T, D))
        return y, (cq, ck, cv, S)


# ---------------------------------------------------------------- Mamba2

def ssd_recurrent(x, dt, A, Bm, Cm, D, h=None):
    """x: (B, T, H, P), dt: (B, T, H) after softplus, A: (H), Bm, Cm: (B, T, N) for one group, h: (B, H, P, N)."""
    B, T, H, P = x.shape
    h = x.new_zeros(B, H, P, Bm.shape[-1]) if h is None else h
    out = []
    for t in range(T):
        decay = torch.exp(dt[:, t] * A)
        h = h * decay[..., None, None] + torch.einsum("bhp,bn->bhpn", x[:, t] * dt[:, t, :, None], Bm[:, t])
        out.append(torch.einsum("bhpn,bn->bhp", h, Cm[:, t]) + D[:, None] * x[:, t])
    return torch.stack(out, 1), h


def ssd_chunked(x, dt, A, Bm, Cm, D, h=None, C=64):
    B, T, H, P = x.shape
    pad = (-T) % C
    skip = x * D[:, None]
    if pad:
        x, dt = F.pad(x, (0, 0, 0, 0, 0, pad)), F.pad(dt, (0, 0, 0, pad))
        Bm, Cm = F.pad(Bm, (0, 0, 0, pad)), F.pad(Cm, (0, 0, 0, pad))
    n = (T + pad) // C
    xd = (x * dt[..., None]).reshape(B, n, C, H, P)
    a = (dt * A).reshape(B, n, C, H).permute(0, 1, 3, 2)            # (B, n, H, C)
    Bm, Cm = Bm.reshape(B, n, C, -1), Cm.reshape(B, n, C, -1)
    cum = a.cumsum(-1)
    seg = cum[..., :, None] - cum[..., None, :]
    mask = torch.tril(torch.ones(C, C, device=x.device, dtype=torch.bool))
    L = torch.exp(seg.masked_fill(~mask, float("-inf")))            # (B, n, H, C, C)
    G = torch.einsum("bncs,bnds->bncd", Cm, Bm)
    y = torch.einsum("bncd,bnhcd,bndhp->bnchp", G, L, xd)
    tail = torch.exp(cum[..., -1:] - cum)                           # decay from a token to its chunk's end
    states = torch.einsum("bnds,bnhd,bndhp->bnhps", Bm, tail, xd)
    h = x.new_zeros(B, H, P, Bm.shape[-1]) if h is None else h
    before = []
    for i in range(n):
        before.append(h)
        h = h * torch.exp(cum[:, i, :, -1])[..., None, None] + states[:, i]
    y = y + torch.einsum("bncs,bnhps,bnhc->bnchp", Cm, torch.stack(before, 1), torch.exp(cum))
    return y.reshape(B, n * C, H, P)[:, :T] + skip, h


class Mamba2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.d_inner, self.N, self.P = c.mamba_expand * c.hidden_size, c.mamba_d_state, c.mamba2_headdim
        self.H = self.d_inner // self.P
        conv = self.d_inner + 2 * self.N
        self.in_proj = nn.Linear(c.hidden_size, self.d_inner + conv + self.H, bias=False)
        self.conv1d = CausalConv1d(conv, c.mamba_d_conv, True)
        dt = torch.exp(torch.rand(self.H) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(torch.log(torch.arange(1, self.H + 1).float()))
        self.D = nn.Parameter(torch.ones(self.H))
        self.norm = RMSNorm(self.d_inner, 1e-5)
        self.out_proj = nn.Linear(self.d_inner, c.hidden_size, bias=False)

    def forward(self, x, cache=None, chunked=True):
        B, T, _ = x.shape
        conv_state, h = cache if cache is not None else (None, None)
        z, xBC, dt = self.in_proj(x).split([self.d_inner, self.d_inner + 2 * self.N, self.H], -1)
        xBC, conv_state = self.conv1d(xBC, conv_state)
        xs, Bm, Cm = F.silu(xBC).split([self.d_inner, self.N, self.N], -1)
        dt = F.softplus(wide(dt) + wide(self.dt_bias))
        scan = ssd_chunked if chunked else ssd_recurrent
        y, h = scan(wide(xs).reshape(B, T, self.H, self.P), dt, -torch.exp(wide(self.A_log)), wide(Bm), wide(Cm), wide(self.D), h)
        y = y.reshape(B, T, -1) * F.silu(wide(z))                   # gate first, then norm
        return self.out_proj(self.norm(y.to(x.dtype))), (conv_state, h)


# ---------------------------------------------------------------- attention, FFN

def rope_tables(c, dim, positions, dtype):
    base = c.rope_theta
    if c.rope_type == "ntk":
        base = base * (2 * c.max_position_embeddings / c.orig_max_position_embeddings - 1) ** (dim / (dim - 2))
    inv = 1.0 / base ** (torch.arange(0, dim, 2, device=positions.device).double() / dim)
    ang = positions.double()[:, None] * inv[None]
    ang = torch.cat([ang, ang], -1)
    return ang.cos().to(dtype), ang.sin().to(dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-b, a], -1) * sin[:, None]


class Attention(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        D = c.attn_hidden_size if c.attn_hidden_size > 0 else c.hidden_size
        self.c, self.H, self.Hkv = c, c.num_attention_heads, c.num_key_value_heads
        self.K = c.kq_head_dim if c.kq_head_dim > 0 else D // self.H
        self.V = c.v_head_dim if c.v_head_dim > 0 else D // self.H
        self.window = c.sliding_window if c.sliding_window and index not in (c.global_attn_idx or []) else None
        self.q_proj = nn.Linear(D, self.H * self.K, bias=False)
        self.k_proj = nn.Linear(D, self.Hkv * self.K, bias=False)
        self.v_proj = nn.Linear(D, self.Hkv * self.V, bias=False)
        self.o_proj = nn.Linear(self.H * self.V, D, bias=False)
        if c.kq_norm == "rms":
            self.q_norm, self.k_norm = RMSNorm(self.K, 1e-5), RMSNorm(self.K, 1e-5)

    def forward(self, x, cache=None, chunked=True):
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.H, self.K)
        k = self.k_proj(x).view(B, T, self.Hkv, self.K)
        v = self.v_proj(x).view(B, T, self.Hkv, self.V)
        if self.c.kq_norm == "rms":
            q, k = self.q_norm(q), self.k_norm(k)
        past = 0 if cache is None else cache[0].shape[1]
        if self.c.rope:
            cos, sin = rope_tables(self.c, self.K, torch.arange(past, past + T, device=x.device), x.dtype)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 1), torch.cat([cache[1], v], 1)
        qi = torch.arange(past, past + T, device=x.device)[:, None]
        ki = torch.arange(k.shape[1], device=x.device)[None]
        mask = ki <= qi
        if self.window:
            mask = mask & (ki >= qi - self.window)          # a key `window` steps back is still seen
        rep = self.H // self.Hkv
        kk, vv = k.repeat_interleave(rep, 2).transpose(1, 2), v.repeat_interleave(rep, 2).transpose(1, 2)
        o = F.scaled_dot_product_attention(q.transpose(1, 2), kk, vv, attn_mask=mask, scale=self.K ** -0.5)
        return self.o_proj(o.transpose(1, 2).reshape(B, T, -1)), (k, v)


class FFN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.act = c.mlp_hidden_act
        if self.act == "silu":
            self.gate_proj = nn.Linear(c.hidden_size, c.ffn_dim, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.ffn_dim, bias=False)
        self.down_proj = nn.Linear(c.ffn_dim, c.hidden_size, bias=False)

    def forward(self, x):
        if self.act == "silu":
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(F.relu(self.up_proj(x)).square())     # relu2


class Layer(nn.Module):
    """Pre-norm residual layer. The mixer's attribute name is the checkpoint's."""

    def __init__(self, c, index):
        super().__init__()
        kind = c.layer_types[index]
        self.mixer = {"deltanet": "gla", "m2": "mamba", "m": "mamba", "a": "self_attn", "f": None}[kind]
        if kind == "deltanet":
            self.gla = DeltaNet(c)
        elif kind in ("m", "m2"):
            self.mamba = Mamba2(c)
        elif kind == "a":
            self.self_attn = Attention(c, index)
        if self.mixer:
            self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        if kind == "f" or c.intermediate_size > 0:
            self.ffn = FFN(c)
            self.pre_ffn_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, cache=None, chunked=True):
        if self.mixer:
            y, cache = getattr(self, self.mixer)(self.input_layernorm(x), cache, chunked)
            x = x + y
        if hasattr(self, "ffn"):
            x = x + self.ffn(self.pre_ffn_layernorm(x))
        return x, cache


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        if c.num_memory_tokens:
            self.memory_tokens = nn.Parameter(torch.randn(c.num_memory_tokens, c.hidden_size) * 0.02)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(len(c.layer_types)))
        self.final_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class NemotronFlash(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config, self.model = c, Model(c)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids, caches=None, chunked=True):
        """ids: (B, T). With caches=None the meta tokens are put in front. Returns logits (B, T, vocab), caches."""
        m, M = self.model, 0
        x = m.embed_tokens(ids)
        if caches is None:
            caches = [None] * len(m.layers)
            if self.config.num_memory_tokens:
                M = self.config.num_memory_tokens
                x = torch.cat([m.memory_tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        out = []
        for layer, cache in zip(m.layers, caches):
            x, cache = layer(x, cache, chunked)
            out.append(cache)
        rows = wide(self.lm_head.weight).norm(dim=1)                # each logit is divided by its vocabulary row's length
        return wide(self.lm_head(m.final_layernorm(x)[:, M:])) / rows, out
