"""Train a small Nemotron-Flash on a text file and write it as a Hugging Face style checkpoint.

    python3 tests/reference/train.py --out DIR      # the defaults are the numbers that made fables

Weight normalisation as in the paper (section 2.3): after every optimiser step each matrix is
projected onto the unit sphere, row by row where it reads hidden features, column by column
where its output is added back to them. Adam without weight decay, cosine schedule.
"""
import argparse
import json
import math
import os
import time

import torch
import torch.nn.functional as F

from golden_train import WRITES, project
from nemotron_flash import Config, NemotronFlash
from paths import FABLES, TEXT


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", required=True)
    a.add_argument("--text", default=str(TEXT), help="plain text or .xz, books parted by <|endoftext|>")
    a.add_argument("--tokenizer", default=str(FABLES / "tokenizer.json"))
    a.add_argument("--config", default=str(FABLES / "config.json"))
    a.add_argument("--steps", type=int, default=3200)
    a.add_argument("--batch", type=int, default=64)
    a.add_argument("--context", type=int, default=512)
    a.add_argument("--lr", type=float, default=2e-3)
    a.add_argument("--minutes", type=float, default=math.inf, help="end after so long; the schedule is stretched over it")
    a.add_argument("--dropout", type=float, default=0.12, help="on what each layer adds to the residual stream")
    a.add_argument("--no-weight-norm", action="store_true")
    a = a.parse_args()
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True

    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(a.tokenizer)
    import lzma
    text = (lzma.open if a.text.endswith(".xz") else open)(a.text, "rt").read()
    books = [b.strip() for b in text.split("<|endoftext|>") if b.strip()]
    end = tok.token_to_id("<|endoftext|>")
    train, valid = [], []
    for b in books:                                    # the last 3 % of every book is held out
        cut = b.rfind("\n\n", 0, int(len(b) * 0.97))
        train += tok.encode(b[:cut], add_special_tokens=False).ids + [end]
        valid += tok.encode(b[cut:], add_special_tokens=False).ids + [end]
    train, valid = torch.tensor(train, device=dev), torch.tensor(valid, device=dev)
    print(f"train {len(train)} tokens, valid {len(valid)} tokens", flush=True)

    c = Config.load(a.config)
    model = NemotronFlash(c).to(dev)
    for n, p in model.named_parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=c.hidden_size ** -0.5)
    if not a.no_weight_norm:
        project(model)
    for name, module in model.named_modules():
        if name.split(".")[-1] in WRITES:
            module.register_forward_hook(lambda m, _, y: F.dropout(y, a.dropout, m.training))
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=dev == "cuda")

    def loss_of(ids, run):
        with torch.autocast(dev, dtype=torch.bfloat16, enabled=dev == "cuda"):
            logits, _ = run(ids[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    @torch.no_grad()
    def evaluate():
        model.eval()
        n = (len(valid) - 1) // a.context
        ids = torch.stack([valid[i * a.context: i * a.context + a.context + 1] for i in range(n)])
        loss = sum(loss_of(x, model).item() * len(x) for x in ids.split(64)) / n
        model.train()
        return loss

    def save():
        from safetensors.torch import save_file
        os.makedirs(a.out, exist_ok=True)
        state = {k: v.detach().to(torch.bfloat16 if v.ndim >= 2 else torch.float32).contiguous().cpu() for k, v in model.state_dict().items() if k != "lm_head.weight"}
        save_file(state, os.path.join(a.out, "model.safetensors"), metadata={"format": "pt"})

    best, start = math.inf, time.time()
    for step in range(a.steps + 1):
        done = max(step / a.steps, (time.time() - start) / (a.minutes * 60))
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, step / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1, done))))
        if step % 250 == 0 or done >= 1:
            v = evaluate()
            print(f"step {step} valid loss {v:.4f} ppl {math.exp(v):.2f} time {time.time() - start:.0f}s", flush=True)
            if v < best:
                best = v
                save()
            if done >= 1:
                break
        at = torch.randint(0, len(train) - a.context - 1, (a.batch,), device=dev)
        ids = train[at[:, None] + torch.arange(a.context + 1, device=dev)]
        loss = loss_of(ids, model)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if not a.no_weight_norm:
            project(model)
    json.dump({"valid_loss": best, "valid_ppl": math.exp(best), "steps": step}, open(os.path.join(a.out, "training.json"), "w"))


if __name__ == "__main__":
    main()
