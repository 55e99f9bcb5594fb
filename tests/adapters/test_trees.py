"""Trees: which tokens carry loss, who sees whom, and that packing and keeping change nothing."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from familiar.adapters import lora
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Tree
from familiar.adapters.trees import TreeModel, completion_logps, pack, passes
from familiar.memory.errors import InvalidInput

END = 1
TREES = [
    Tree((5, 6, 7, 8), ((9, 10, END), (11, END))),
    Tree((5,), ((11, END),)),
    Tree((5, 6), ((12, 13, 14, 15, 16, END), (END,), (9, END))),
]


def test_only_the_completions_carry_loss_to_the_token() -> None:
    packed = pack([Tree((10, 11, 12), ((20, 21, END), (30, END))), Tree((10,), ((END,),))])
    assert packed.ids_T.tolist() == [10, 11, 12, 20, 21, 30, 10]
    assert packed.positions_T.tolist() == [0, 1, 2, 3, 4, 3, 0]
    assert packed.targets_N.tolist() == [20, 21, END, 30, END, END]
    assert packed.rows_N.tolist() == [2, 3, 4, 2, 5, 6]


def test_a_completion_sees_its_prompt_and_itself_and_nothing_else() -> None:
    mask_LL = pack([Tree((10, 11), ((20, 21, END), (30, END)))]).masks[0].int().tolist()
    assert mask_LL == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def plain_logps(model: torch.nn.Module, tree: Tree) -> list[list[float]]:
    """By the model's own forward, one completion at a time."""
    found = []
    for ids in tree.completions:
        row = [*tree.prompt_ids, *ids]
        logits_TV = model(torch.tensor([row])).logits[0].log_softmax(-1)
        found.append([logits_TV[i - 1, row[i]].item() for i in range(len(tree.prompt_ids), len(row))])
    return found


@pytest.mark.parametrize("first_layer", [0, 1, 2])
def test_a_packed_tree_says_what_each_completion_says_alone(tiny: PreTrainedModel, first_layer: int) -> None:
    model = TreeModel(tiny, first_layer)
    assert model.reads_trees
    wanted = [logps for tree in TREES for logps in plain_logps(tiny, tree)]
    for most in (1, 1000, 1000):  # the third time from what was kept
        got = list(completion_logps(model, TREES, most))
        assert [len(logps) for logps in got] == [3, 2, 2, 6, 1, 2]
        for some, other in zip(got, wanted, strict=True):
            assert some == pytest.approx(other, abs=1e-12)


def test_a_qwen3_with_grouped_heads_is_read_alike() -> None:
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        qwen = Qwen3ForCausalLM(config).double().eval()
    model = TreeModel(qwen, 1)
    assert model.reads_trees
    wanted = [logps for tree in TREES for logps in plain_logps(qwen, tree)]
    for some, other in zip(completion_logps(model, TREES, 100), wanted, strict=True):
        assert some == pytest.approx(other, abs=1e-12)


def test_models_whose_layers_slide_are_read_row_by_row() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).double().eval()
    model.config.model_type = "another"
    trees = TreeModel(model)
    assert not trees.reads_trees
    wanted = [logps for tree in TREES for logps in plain_logps(model, tree)]
    for some, other in zip(completion_logps(trees, TREES, 100), wanted, strict=True):
        assert some == pytest.approx(other, abs=1e-12)


def test_gradients_are_those_of_the_plain_forward_and_end_at_the_frozen_layers(tiny: PreTrainedModel) -> None:
    recipe = Recipe(rank=2, alpha=4, frozen_share=0.5)
    tree = TREES[0]
    with lora.new_adapter(tiny, recipe) as model:
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert names
        assert all(".layers.1." in name for name in names)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(4))
        TreeModel(model, 1).logps([tree]).sum().backward()  # type: ignore[no-untyped-call]
        got = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        for ids in tree.completions:
            row = torch.tensor([[*tree.prompt_ids, *ids]])
            logits_TV = model(row).logits[0].log_softmax(-1)
            picked = logits_TV[range(3, 3 + len(ids)), list(ids)]
            picked.sum().backward()
        torch.testing.assert_close(got, [parameter.grad for parameter in parameters])


def test_without_the_adapter_it_is_the_base(tiny: PreTrainedModel) -> None:
    wanted = TreeModel(tiny).logits(TREES)
    with lora.new_adapter(tiny, Recipe(rank=2, alpha=4)) as adapted:
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(4))
        model = TreeModel(adapted)
        assert (model.logits(TREES) - wanted).abs().max() > 0.01
        with model.without_adapter():
            torch.testing.assert_close(model.logits(TREES), wanted)


def test_passes_are_within_the_budget_and_leave_nothing_out() -> None:
    sizes = [tree.inputs for tree in TREES]
    assert sizes == [7, 2, 8]
    assert [TREES[part] for part in passes(TREES, 9)] == [TREES[:2], TREES[2:]]
    assert [TREES[part] for part in passes(TREES, 1)] == [[tree] for tree in TREES]
    assert list(passes([], 9)) == []


def test_an_empty_completion_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty prompt or reply"):
        Tree((5,), ((),))
