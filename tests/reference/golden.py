"""Golden vectors from the reference, computed in float64 and stored as float32.

    python3 tests/reference/golden.py --out DIR

DIR is written with the layout of tests/golden; `compare.py DIR` holds the two against each other.

- ops.safetensors: one set of tensors for each operator case, named `case.tensor`.
- A folder for each small random model: config.json, model.safetensors (bfloat16) and expected.safetensors.
- qwen3/ is made by the transformers library, qwen3-mlx/ is the same model in 4 bits, quantised by mlx.
- fables.safetensors: the trained model on three prompts.

expected.safetensors holds ids [T] i32, logits [T, vocab] f32, greedy [n] i32 (the tokens that continue ids) and
gap [n] f32: at each greedy step, the best logit minus the second-best one. Where the gap is smaller than the
tolerance of an implementation, another token is no error.
"""
import argparse
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from nemotron_flash import Attention, Config, DeltaNet, Mamba2, NemotronFlash, delta_rule_recurrent, rms_norm, ssd_recurrent
from paths import FABLES, GOLDEN

MODELS = {
    "mixed": dict(vocab_size=512, hidden_size=128, num_attention_heads=2, num_key_value_heads=1, num_memory_tokens=8, mamba_d_state=64, mamba2_headdim=32,
                  layer_types="deltanet f m2 f a f m2 f".split(), rope_type="ntk", max_position_embeddings=256, orig_max_position_embeddings=64),
    "wide-heads": dict(vocab_size=300, hidden_size=384, num_attention_heads=3, num_key_value_heads=1, num_memory_tokens=3, ffn_expand_ratio=2.0, mamba_d_state=128, mamba2_headdim=64,
                       layer_types="a deltanet f m2".split(), rope_theta=500000.0, rms_norm_eps=1e-5),
    "variants": dict(vocab_size=257, hidden_size=192, num_attention_heads=3, num_key_value_heads=3, num_memory_tokens=0, mlp_hidden_act="relu2", kq_norm="rms", mamba_d_state=16, mamba2_headdim=64,
                     layer_types="m2 a f f deltanet a f".split(), sliding_window=16, global_attn_idx=[1]),
    "attention-only": dict(vocab_size=512, hidden_size=128, num_attention_heads=4, num_key_value_heads=2, num_memory_tokens=4, layer_types="a f a f".split()),
}


def spread(model, gen):
    """Weights that exercise every path: unit-scale matrices, norms away from one."""
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
        for name, p in model.named_parameters():
            p.copy_(p.bfloat16().float())


def keep_dt_bias(model, file, prefix=""):
    """Takes dt_bias from a golden file. When the files of tests/golden were first made, dt_bias alone was drawn by torch's
    own generator without a seed, so nothing but these files can tell it."""
    golden = load_file(file)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("dt_bias"):
                p.copy_(golden[prefix + name].float())


@torch.no_grad()
def expected(model, ids, steps):
    model = model.double()
    logits, cache = model(ids[None])
    greedy, gap, last = [], [], logits[0, -1]
    for _ in range(steps):
        top = last.topk(2)
        greedy.append(top.indices[0].item())
        gap.append((top.values[0] - top.values[1]).item())
        step, cache = model(torch.tensor([[greedy[-1]]]), cache, chunked=False)
        last = step[0, -1]
    return {"ids": ids.int(), "logits": logits[0].float(), "greedy": torch.tensor(greedy, dtype=torch.int32), "gap": torch.tensor(gap, dtype=torch.float32)}


@torch.no_grad()
def operators(gen, golden):
    r = lambda *s: torch.randn(*s, generator=gen, dtype=torch.float64).float().double()
    u = lambda *s: torch.rand(*s, generator=gen, dtype=torch.float64).float().double()
    unit = lambda t: t * torch.rsqrt(t.pow(2).sum(-1, keepdim=True) + 1e-6)
    out = {}

    def put(case, **tensors):
        out.update({f"{case}.{k}": v.float().contiguous() for k, v in tensors.items()})

    for T, H, K in ((1, 2, 64), (63, 2, 64), (130, 3, 128)):
        q, k, v, beta, S0 = unit(r(1, T, H, K)), unit(r(1, T, H, K)), r(1, T, H, K), u(1, T, H), r(1, H, K, K) * 0.3
        o, S = delta_rule_recurrent(q, k, v, beta, S0)
        put(f"delta_rule_t{T}_k{K}", q=q[0], k=k[0], v=v[0], beta=beta[0], state_in=S0[0], out=o[0], state_out=S[0])
    for T, H, P, N in ((1, 2, 64, 128), (65, 3, 32, 16), (130, 2, 64, 128)):
        x, dt, A, Bm, Cm, D, h0 = r(1, T, H, P), u(1, T, H) * 0.2, -u(H) * 8, r(1, T, N), r(1, T, N), u(H), r(1, H, P, N) * 0.3
        y, h = ssd_recurrent(x, dt, A, Bm, Cm, D, h0)
        put(f"ssd_t{T}_p{P}_n{N}", x=x[0], dt=dt[0], A=A, B=Bm[0], C=Cm[0], D=D, state_in=h0[0], out=y[0], state_out=h[0])
    x, w = r(5, 384) * 4, u(384) + 0.5
    put("rms_norm", x=x, weight=w, out=rms_norm(x, w, 1e-6))
    for name, kind, cfg in (("deltanet_layer", DeltaNet, {}), ("mamba2_layer", Mamba2, {}), ("attention_layer", Attention, dict(kq_norm="rms", rope_type="ntk", max_position_embeddings=256, orig_max_position_embeddings=64))):
        c = Config(hidden_size=128, num_attention_heads=2, num_key_value_heads=1, mamba_d_state=32, mamba2_headdim=32, **cfg)
        layer = kind(c, 0) if kind is Attention else kind(c)
        spread(layer, gen)
        if golden:
            keep_dt_bias(layer, f"{golden}/ops.safetensors", f"{name}.")
        layer = layer.double()
        x = r(1, 40, 128)
        first, cache = layer(x[:, :33])
        rest, _ = layer(x[:, 33:], cache, chunked=False)
        put(name, x=x[0], out=torch.cat([first, rest], 1)[0], **{k: v for k, v in layer.state_dict().items()})
    return out


def qwen3(folder, gen):
    """A small random Qwen3, by the transformers library: the dense baseline. Returns the model and its prompt."""
    from transformers import Qwen3Config, Qwen3ForCausalLM
    c = Qwen3Config(vocab_size=512, hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
                    rope_theta=1000000.0, tie_word_embeddings=True, max_position_embeddings=512)
    model = Qwen3ForCausalLM(c).eval()
    spread(model, gen)
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.bfloat16().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}, f"{folder}/model.safetensors", metadata={"format": "pt"})
    raw = c.to_dict()
    raw.update(architectures=["Qwen3ForCausalLM"], rope_theta=1000000.0)
    json.dump({k: v for k, v in raw.items() if isinstance(v, (int, float, str, bool, list, type(None)))}, open(f"{folder}/config.json", "w"), indent=1)
    ids = torch.randint(0, c.vocab_size, (37,), generator=gen)
    save_file(dense_expected(model, ids), f"{folder}/expected.safetensors")
    return model, ids


@torch.no_grad()
def dense_expected(model, ids, steps=24):
    """As `expected`, for a model of the transformers library; the whole text is read again at every step."""
    model = model.double()
    logits = model(ids[None]).logits[0]
    greedy, gap, now = [], [], ids
    for _ in range(steps):
        top = model(now[None]).logits[0, -1].topk(2)
        greedy.append(top.indices[0].item())
        gap.append((top.values[0] - top.values[1]).item())
        now = torch.cat([now, top.indices[:1]])
    return {"ids": ids.int(), "logits": logits.float(), "greedy": torch.tensor(greedy, dtype=torch.int32), "gap": torch.tensor(gap)}


def quantised(folder, dense, group=64, bits=4):
    """The folder `dense` with every matrix in 4 bits, as mlx writes them."""
    import mlx.core as mx
    stored = {}
    for name, t in mx.load(f"{dense}/model.safetensors").items():
        if t.ndim < 2:
            stored[name] = t
        else:
            path = name.removesuffix(".weight")
            stored |= zip((f"{path}.weight", f"{path}.scales", f"{path}.biases"), mx.quantize(t, group, bits))
    os.makedirs(folder, exist_ok=True)
    mx.save_safetensors(f"{folder}/model.safetensors", stored, metadata={"format": "mlx"})
    recipe = {"group_size": group, "bits": bits, "mode": "affine"}
    raw = dict(json.load(open(f"{dense}/config.json")), quantization=recipe, quantization_config=recipe)
    json.dump(raw, open(f"{folder}/config.json", "w"), indent=4, sort_keys=True)


def qwen3_mlx(folder, model, ids, bits=4):
    """The expected numbers of a quantised folder: every matrix is q * scale + bias in float64. The model is left with them."""
    stored = load_file(f"{folder}/model.safetensors")
    wide = {}
    for name in (n for n in stored if n.endswith(".scales")):
        path = name.removesuffix(".scales")
        words, scales, biases = stored[f"{path}.weight"].view(torch.int32).long(), stored[name].double(), stored[f"{path}.biases"].double()
        q = torch.stack([(words >> (bits * i)) & (2 ** bits - 1) for i in range(32 // bits)], -1)
        q = q.reshape(*scales.shape, -1)                        # [rows, groups, numbers of a group]
        wide[f"{path}.weight"] = (q * scales[..., None] + biases[..., None]).flatten(1)
    model = model.double()
    left = model.load_state_dict(wide, strict=False)
    assert not left.unexpected_keys, left
    save_file(dense_expected(model, ids), f"{folder}/expected.safetensors")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", required=True)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--models", default=FABLES, help="folder of the trained model")
    a.add_argument("--dt-bias", default=GOLDEN, metavar="DIR", help="golden files to take dt_bias from; \"\" draws new ones, by the seed")
    a.add_argument("--only", choices=("nemotron-flash", "qwen3"), help="leave the other family out: qwen3 needs transformers and mlx")
    a = a.parse_args()
    gen = torch.Generator().manual_seed(a.seed)                 # one generator for all: the order of what follows is part of the files
    torch.manual_seed(a.seed)                                   # dt_bias is drawn by torch's own generator
    os.makedirs(a.out, exist_ok=True)
    save_file(operators(gen, a.dt_bias), f"{a.out}/ops.safetensors")
    for name, over in MODELS.items():
        folder = f"{a.out}/{name}"
        os.makedirs(folder, exist_ok=True)
        c = Config(**over)
        model = NemotronFlash(c)
        spread(model, gen)
        if a.dt_bias:
            keep_dt_bias(model, f"{a.dt_bias}/{name}/model.safetensors")
        save_file({k: v.bfloat16().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}, f"{folder}/model.safetensors", metadata={"format": "pt"})
        full = dict(c.__dict__, architectures=["NemotronFlashForCausalLM"], model_type="nemotron_flash", num_hidden_layers=len(c.layer_types), bos_token_id=1, eos_token_id=2, pad_token_id=0, torch_dtype="bfloat16")
        json.dump(full, open(f"{folder}/config.json", "w"), indent=1)
        ids = torch.randint(3, c.vocab_size, (int(torch.randint(70, 140, (1,), generator=gen)),), generator=gen)
        save_file(expected(model, ids, 32), f"{folder}/expected.safetensors")
    if a.only != "nemotron-flash":
        model, ids = qwen3(f"{a.out}/qwen3", gen)
        quantised(f"{a.out}/qwen3-mlx", f"{a.out}/qwen3")
        qwen3_mlx(f"{a.out}/qwen3-mlx", model, ids)
    if a.only != "qwen3":
        from tokenizers import Tokenizer
        tok = Tokenizer.from_file(f"{a.models}/tokenizer.json")
        model = NemotronFlash(Config.load(f"{a.models}/config.json"))
        model.load_state_dict({k: v.float() for k, v in load_file(f"{a.models}/model.safetensors").items()}, strict=False)
        out, texts = {}, {}
        for i, prompt in enumerate(("Once upon a time", "The little girl looked at the wolf and said", "\"Who are you?\" asked the King. Then the old woman, who was a witch,")):
            e = expected(model, torch.tensor(tok.encode(prompt, add_special_tokens=False).ids), 64)
            out.update({f"{i}.{k}": v for k, v in e.items()})
            texts[prompt] = tok.decode(e["greedy"].tolist())
        save_file(out, f"{a.out}/fables.safetensors")
        json.dump(texts, open(f"{a.out}/fables.json", "w"), indent=1)


if __name__ == "__main__":
    main()
