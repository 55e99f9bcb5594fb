"""What a learning run will take, from the model's header and the recipe, before anything is loaded. Free of torch.

The memory is an upper estimate of the trainer's own: weights dequantised to float32, the model once more as llama.cpp
maps it, the adapter with its gradient and AdamW's two moments, the activations of one batch kept for the backward pass,
its logits, and what the frozen layers computed, which is kept. What is left out: llama.cpp's caches, which take their
share of what is free at the time; what torch sets aside beyond that; graphics memory. The time is a rough one: the
arithmetic of imitation's steps, at a rate that ordinary processors reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from familiar.adapters.gguf_file import Header
from familiar.adapters.recipe import Recipe

LIBRARIES_BYTES = 500_000_000
"""torch, transformers and what they load."""
FLOPS_PER_CORE = 1.5e10
"""Multiplications and additions in float32 that one processor core does in a second, in matrices of middling size."""
ANCHOR_TOKENS = 60
"""Tokens of a neutral row that training holds in place."""
KEPT_BYTES = 1 << 30
"""Most memory for what the frozen layers computed; beyond it, the rows longest unused are computed again."""
START_S = 15.0
"""Importing torch and loading the model."""

_FLOAT = 4
_OPTIMISED = 4 * _FLOAT  # the weight, its gradient, two moments
_LOGIT_COPIES = 3  # the logits, their log-softmax, and its gradient
_PASSES = 2  # a step's forward pass, and a backward pass of the same arithmetic: frozen weights need no gradient
_LAYERS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Estimate:
    """What a run takes at most, about: bytes of memory, and seconds of work on ``cores`` processor cores."""

    memory_bytes: int
    seconds: float


def estimate(header: Header, recipe: Recipe, row_tokens: Sequence[int], *, cores: int) -> Estimate:
    """Estimate a run over rows of so many tokens each, prompt and both replies together."""
    weights = sum(prod(tensor.shape) for tensor in header.tensors.values())
    longest = max(row_tokens, default=0)
    batch_tokens = max(longest, min(recipe.batch_size * longest, recipe.pass_tokens))
    name = header.architecture
    blocks, width = (int(header.number(f"{name}.{each}")) for each in ("block_count", "embedding_length"))
    frozen = recipe.frozen_layers(blocks)
    trained = 1 - frozen / blocks
    epoch_tokens = sum(sorted(row_tokens, reverse=True)[: recipe.epoch_rows])
    steps = ceil(min(len(row_tokens), recipe.epoch_rows) / recipe.batch_size)
    held_tokens = steps * recipe.anchor_batch * ANCHOR_TOKENS
    parts = (
        LIBRARIES_BYTES,
        weights * _FLOAT,
        header.path.stat().st_size,
        _adapter_weights(header, recipe) * trained * _OPTIMISED,
        batch_tokens * _activations(header, longest) * trained * _FLOAT,
        batch_tokens * _vocabulary(header) * _LOGIT_COPIES * _FLOAT,
        min(KEPT_BYTES, sum(row_tokens) * width * _FLOAT) if frozen else 0,
    )
    flops = 2 * weights * (sum(row_tokens) + (epoch_tokens + held_tokens) * recipe.epochs * _PASSES * trained)
    return Estimate(int(sum(parts)), START_S + flops / (FLOPS_PER_CORE * max(1, cores)))


def _adapter_weights(header: Header, recipe: Recipe) -> int:
    """The numbers in A and B of every layer that the recipe adapts."""
    adapted = {f"{_LAYERS[name]}.weight" for name in recipe.target_modules}
    found = [tensor.shape for tensor in header.tensors.values() if tensor.name.split(".", 2)[-1] in adapted]
    return sum(recipe.rank * (shape[0] + shape[1]) for shape in found)


def _activations(header: Header, tokens: int) -> int:
    """The numbers that the backward pass needs of one token in a sequence of ``tokens``, all layers together.

    Of a block: about ten vectors of the model's width, four of the feed-forward layer's, and the attention weights.
    """
    name = header.architecture
    width, blocks = header.number(f"{name}.embedding_length"), header.number(f"{name}.block_count")
    inner = header.number(f"{name}.feed_forward_length", 4 * width)
    heads = header.number(f"{name}.attention.head_count")
    return int(blocks * (10 * width + 4 * inner + 2 * heads * tokens))


def _vocabulary(header: Header) -> int:
    return header.tensors["token_embd.weight"].shape[1]
