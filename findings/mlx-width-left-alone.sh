#!/usr/bin/env bash
# mlx-lm leaves a matrix as it is where the group does not divide its width, and neither the config nor a warning says so.
# One would have guessed an error, or an entry in the config: it lists modules of other bits, and `false` for modules left
# alone by a recipe. Here a 4-bit model keeps its down projection in 32 bits; only the tensors' names show it.
. "$(dirname "$0")/lib.sh"
python_with mlx[cpu]==0.32.4 mlx-lm==0.32.2
run venv/bin/python - <<'E'
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import quantize_model

shape = dict(hidden_size=128, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=64)
model = llama.Model(llama.ModelArgs(model_type="llama", rms_norm_eps=1e-5, tie_word_embeddings=True, **shape))
model, config = quantize_model(model, {"model_type": "llama"}, 64, 4)
print("config:", config["quantization"])
for name, tensor in sorted(tree_flatten(model.parameters())):
    if "mlp" in name and name.endswith(".weight"):
        print(name, tensor.dtype)
E
grep -v INFO seen >kept && mv kept seen
expect <<'E'
config: {'group_size': 64, 'bits': 4, 'mode': 'affine'}
model.layers.0.mlp.down_proj.weight mlx.core.float32
model.layers.0.mlp.gate_proj.weight mlx.core.uint32
model.layers.0.mlp.up_proj.weight mlx.core.uint32
E
