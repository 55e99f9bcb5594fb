"""Decode a few tokens with a model file: a wheel built for another processor stops here, not in a chat."""

import sys

from llama_cpp import Llama

llama = Llama(sys.argv[1], n_ctx=64, verbose=False)
out = llama.create_completion("Hello", max_tokens=4, temperature=0.0)
print(out["choices"][0]["text"])  # type: ignore[index]
