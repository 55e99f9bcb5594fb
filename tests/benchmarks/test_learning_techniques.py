"""The trainer of ``benchmarks/learning.py`` with a technique off computes what it computes with all on."""

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RAGGED = [((5, 6, 7, 8), ((9, 10, 1), (11, 1))), ((5,), ((11, 1),)), ((5, 6), ((12, 13, 14, 15, 16, 1), (9, 1)))]


def test_every_variant_gives_the_same_gradient(benchmarks: Any) -> None:
    from familiar.adapters import lora
    from familiar.adapters.recipe import Recipe
    from familiar.adapters.rows import Tree

    ours, techniques = benchmarks("learning_ours"), benchmarks("learning_techniques")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config).double().eval().requires_grad_(False)
    trees = [Tree(*row) for row in RAGGED]
    with lora.new_adapter(model, Recipe(rank=2, alpha=4, frozen_share=0.5)) as adapted:
        parameters = [each for each in adapted.parameters() if each.requires_grad]
        for number, parameter in enumerate(parameters):
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(number))

        def gradients(variant: Any) -> list[Any]:
            switched = techniques.Switched(adapted, 1, variant)
            for _ in range(2):  # the second time from what was kept
                logps_N = switched.logps(trees)
            found: list[Any] = [logps_N.detach(), *torch.autograd.grad(logps_N.sum(), parameters)]
            return found

        wanted = gradients(ours.VARIANTS[ours.ALL_ON])
        for name, variant in ours.VARIANTS.items():
            torch.testing.assert_close(
                gradients(replace(variant, bfloat16=False)), wanted, msg=lambda told, name=name: f"{name}: {told}"
            )
