"""Trees: which tokens carry loss, who sees whom, and that packing and keeping change nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Phi3Config, PreTrainedModel, Qwen3Config

from familiar.adapters import lora
from familiar.adapters.precision import MAX_MEAN_GAP
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Tree
from familiar.adapters.trees import Kept, TreeModel, completion_logps, pack, passes
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


QWEN3 = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
SLIDING = {**QWEN3, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}


@pytest.mark.parametrize(
    ("kind", "more", "as_trees"),
    [
        (Qwen3Config, QWEN3, True),
        (Qwen3Config, SLIDING, False),  # its upper layer sees only the newest tokens
        (Phi3Config, {"pad_token_id": 0, "eos_token_id": END}, False),  # its layers are made in another way
    ],
)
def test_other_models_are_read_alike_as_trees_or_row_by_row(
    tiny_model: Callable[..., PreTrainedModel], kind: type, more: dict[str, object], as_trees: bool
) -> None:
    causal = tiny_model(kind, **more)
    model = TreeModel(causal, 1)
    assert model.reads_trees == as_trees
    wanted = [logps for tree in TREES for logps in plain_logps(causal, tree)]
    got = list(completion_logps(model, TREES, 100))
    assert [len(logps) for logps in got] == [len(logps) for logps in wanted]
    for some, other in zip(got, wanted, strict=True):
        assert some == pytest.approx(other, abs=1e-12)


def test_in_bfloat16_what_is_kept_says_what_the_plain_forward_says(tiny: PreTrainedModel) -> None:
    narrow = tiny.bfloat16()
    whole, kept = TreeModel(narrow), TreeModel(narrow, 1)
    for trees in (TREES, TREES, TREES[::-1], TREES[1:]):  # computed, then all or some of it from what was kept
        got = kept.logps(trees)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, whole.logps(trees), rtol=0, atol=1e-5)
    wanted = torch.tensor([logp for tree in TREES for logps in plain_logps(narrow, tree) for logp in logps])
    assert (kept.logps(TREES) - wanted).abs().mean() < MAX_MEAN_GAP


def test_what_was_unused_for_longest_is_dropped_first() -> None:
    kept, parts = Kept(most_bytes=2 * 24), [torch.full((2, 3), float(i)) for i in range(3)]  # 24 bytes each
    kept.add(TREES[0], parts[0])
    kept.add(TREES[1], parts[1])
    assert kept.get(TREES[0]) is parts[0]
    kept.add(TREES[2], parts[2])
    assert [kept.get(tree) for tree in TREES] == [parts[0], None, parts[2]]
    kept.add(TREES[1], torch.zeros(4, 3))
    assert [kept.get(tree) is not None for tree in TREES] == [False, True, False], "as many as it takes"
    nothing = Kept(0)
    nothing.add(TREES[0], parts[0])
    assert nothing.get(TREES[0]) is None


def test_what_is_kept_is_each_trees_alone_and_no_graph(tiny: PreTrainedModel) -> None:
    kept = Kept()
    TreeModel(tiny.requires_grad_(True), 1, kept=kept).logits(TREES)
    for tree in TREES:
        part_TD = kept.get(tree)
        assert part_TD is not None
        assert part_TD.untyped_storage().nbytes() == part_TD.nbytes == 8 * 16 * tree.inputs, "no view of the whole pass"
        assert not part_TD.requires_grad


def test_the_frozen_layers_are_computed_once_for_each_tree(
    tiny: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = tiny.model.layers[0].forward

    def counted(hidden_1TD: torch.Tensor, **named: Any) -> torch.Tensor:
        read.append(hidden_1TD.shape[1])
        found: torch.Tensor = plain(hidden_1TD, **named)
        return found

    monkeypatch.setattr(tiny.model.layers[0], "forward", counted)
    model = TreeModel(tiny, 1)
    model.logits(TREES[:2])
    with lora.new_adapter(tiny, Recipe(rank=2, alpha=4, frozen_share=0.5)) as adapted:
        model.adapted(adapted).logits([TREES[1], TREES[2], TREES[0], TREES[2]])
        model.adapted(adapted).logits(TREES)
    assert read == [TREES[0].inputs + TREES[1].inputs, TREES[2].inputs]


@pytest.mark.parametrize(
    ("share", "count", "frozen"), [(0.67, 6, 4), (0.67, 28, 18), (0.5, 3, 1), (0.99, 2, 1), (0, 6, 0)]
)
def test_the_frozen_share_is_rounded_down_so_that_a_layer_is_always_trained(
    share: float, count: int, frozen: int
) -> None:
    assert Recipe(frozen_share=share).frozen_layers(count) == frozen


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


@pytest.mark.parametrize("wrong", [((5,), ((),)), ((5,), ((6,), ())), ((5,), ()), ((), ((6,),))])
def test_an_empty_prompt_or_completion_is_refused(wrong: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInput, match="empty prompt or reply"):
        Tree(*wrong)


def test_a_tree_knows_its_sizes() -> None:
    assert [(tree.inputs, tree.targets, tree.depth) for tree in TREES] == [(7, 5, 7), (2, 2, 3), (8, 9, 8)]
