#!/usr/bin/env bash
# In the tokenizers library, what has no token vanishes, in both directions and without an error. A BPE model without an
# unknown token encodes foreign text to nothing, and its neighbours are merged as if they had touched: "axb" becomes the one
# token "ab". Ids past the vocabulary decode to nothing. One would have guessed an exception: the models of many checkpoints have more rows than their tokenizers have tokens, so such ids can be drawn.
. "$(dirname "$0")/lib.sh"
python_with tokenizers==0.23.3
run venv/bin/python - <<'E'
from tokenizers import Tokenizer, models
from tokenizers.decoders import DecodeStream

t = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
print("encode:", t.encode("xyz").ids, t.encode("axb").ids)
print("decode:", repr(t.decode([2, 77, 1])), repr(t.decode([77])), t.id_to_token(77))
stream = DecodeStream()
print("stream:", [stream.step(t, i) for i in (2, 77, 1)])
E
expect <<'E'
encode: [] [2]
decode: 'ab b' '' None
stream: ['ab', None, ' b']
E
