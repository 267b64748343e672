"""Where things are, whatever the current folder is."""
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
FABLES = REPOSITORY / "models/fables"       # the trained model: config.json, tokenizer.json, model.safetensors
TEXT = HERE / "fairy-tales.txt.xz"          # what it was trained on
GOLDEN = REPOSITORY / "tests/golden"
TRAINING_SPEC = HERE / "training.json"
