#!/usr/bin/env bash
# `{{ tool | tojson }}` gives three texts in three renderers of chat templates. jinja2 sorts the keys and writes < ' and é as
# escapes; minijinja keeps the order and escapes < and ' alone; transformers replaces the filter by one of its own, which
# keeps the order and escapes nothing. One would have guessed that a filter of one name gives one JSON text: a model was
# trained on exactly one of them.
. "$(dirname "$0")/lib.sh"
python_with jinja2==3.1.6 minijinja==3.1.0 transformers==5.24.0 tokenizers==0.23.3
run venv/bin/python - <<'E'
import jinja2
import minijinja
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

tool = {"name": "f", "about": "a < b, don't, é"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
print("jinja2      ", jinja2.Template("{{ t | tojson }}").render(t=tool))
print("minijinja   ", minijinja.Environment().render_str("{{ t | tojson }}", t=tool))
print("transformers", tokenizer.apply_chat_template([{"role": "user", "content": tool}], chat_template="{{ messages[0].content | tojson }}", tokenize=False))
E
expect <<'E'
jinja2       {"about": "a \u003c b, don\u0027t, \u00e9", "name": "f"}
minijinja    {"name": "f", "about": "a \u003c b, don\u0027t, é"}
transformers {"name": "f", "about": "a < b, don't, é"}
E
