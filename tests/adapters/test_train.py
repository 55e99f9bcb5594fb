"""Training: what moves, what does not, and that cutting a run in pieces changes nothing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from familiar.adapters import checkpoints, lora, objective, session
from familiar.adapters.checkpoints import Epoch
from familiar.adapters.folders import read_manifest
from familiar.adapters.objective import Imitation, accumulate, add_references, anchor_kl, anchored
from familiar.adapters.protocols import Progress, ProgressCallback, silent
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Distilled, Encoded, Tree, logps_key, reference_keys
from familiar.adapters.train import PRACTISED_EPOCHS, best, learning_rate_at, train
from familiar.adapters.trees import TreeModel, completion_logps
from familiar.memory.errors import InvalidInput, LearningFailed, NotEnoughSignals

RECIPE = Recipe(
    rank=2, alpha=4, epochs=4, batch_size=3, learning_rate=0.02, patience=0, frozen_share=0.0, pass_tokens=24
)


def run(base: PreTrainedModel, rows: Sequence[Encoded], folder: Path, recipe: Recipe = RECIPE, **more: object) -> Path:
    given: dict[str, object] = {"reference_logps": {}, "anchors": rows[8:], **more}
    return train(base, rows[:6], rows[6:8], recipe, folder=folder, **given)  # type: ignore[arg-type]


def history(folder: Path, recipe: Recipe = RECIPE) -> tuple[Epoch, ...]:
    newest = max(folder.glob("epoch-*"))
    found = checkpoints.newest(folder, str(read_manifest(newest)["fingerprint"]))
    assert found
    return found.history


def test_every_adapter_weight_moves_and_no_base_weight_does(
    tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    with lora.new_adapter(tiny, RECIPE) as model:
        fresh = {name: tensor.clone() for name, tensor in checkpoints_state(model).items()}
    best_folder = run(tiny, rows, tmp_path, replace(RECIPE, epochs=1))
    trained = load_file(best_folder / lora.WEIGHTS)
    assert len(trained) == 2 * 7 * 2
    assert all(not torch.equal(trained[name], fresh[name]) for name in trained)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.state_dict().items())
    assert tiny.state_dict().keys() == before.keys(), "the base is given back without the adapter"


def checkpoints_state(model: object) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state


@pytest.mark.parametrize("most", [1, 20, 50])
def test_a_step_is_the_same_however_it_is_cut(tiny: PreTrainedModel, rows: list[Encoded], most: int) -> None:
    references: dict[str, float] = {}
    add_references(TreeModel(tiny), rows, references, RECIPE, silent)

    def gradients(recipe: Recipe) -> tuple[dict[str, float], list[torch.Tensor]]:
        with lora.new_adapter(tiny, recipe) as model:
            parameters = [p for p in model.parameters() if p.requires_grad]
            for parameter in parameters:
                parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(4))
            figures = accumulate(TreeModel(model), Imitation(recipe, references), rows, recipe)
            return figures, [p.grad for p in parameters if p.grad is not None]

    whole, wanted = gradients(replace(RECIPE, pass_tokens=1000))
    parts, got = gradients(replace(RECIPE, pass_tokens=most))
    assert parts == pytest.approx(whole, rel=1e-9)
    assert len(got) == len(wanted) == 28
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-12)
    assert max(float(gradient.abs().max()) for gradient in wanted) > 1e-3


def test_a_run_is_alike_however_its_steps_are_cut(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    results = []
    for most in (1, 1000):
        recipe = replace(RECIPE, batch_size=8, pass_tokens=most, kl_weight=0.0, epochs=2)
        folder = train(tiny, rows[:8], rows[8:], recipe, folder=tmp_path / f"{most}", reference_logps={})
        results.append(load_file(folder / lora.WEIGHTS))
    assert results[0].keys() == results[1].keys()
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-6, atol=1e-9)


def test_the_prompt_carries_no_loss(tiny: PreTrainedModel) -> None:
    row = Encoded("a", (5, 6, 7), (8, 9, 1))
    with lora.new_adapter(tiny, RECIPE) as model:
        figures = accumulate(TreeModel(model), Imitation(RECIPE, {}), [row], RECIPE)
    logits_TV = tiny(torch.tensor([[5, 6, 7, 8, 9]])).logits[0].log_softmax(-1)
    completion = [logits_TV[2, 8].item(), logits_TV[3, 9].item(), logits_TV[4, 1].item()]
    assert figures["loss"] == pytest.approx(-sum(completion) / 3)


def test_what_the_user_changed_is_told_from_what_was_kept() -> None:
    def changed(chosen: tuple[int, ...], rejected: tuple[int, ...] | None) -> list[int]:
        return [int(each) for each in Encoded("a", (2,), chosen, rejected).changed]

    assert changed((5, 6, 7, 8, 9, 1), (5, 6, 7, 1)) == [0, 0, 0, 1, 1, 0], "added"
    assert changed((5, 6, 1), (5, 6, 7, 8, 1)) == [0, 0, 1], "cut: it is to end here"
    assert changed((5, 9, 7, 1), (5, 6, 7, 1)) == [0, 1, 0, 0], "replaced"
    assert changed((9, 5, 6, 7, 1), (5, 6, 7, 1)) == [1, 0, 0, 0, 0], "put before"
    assert changed((5, 6, 1), (7, 8, 9, 10, 11, 1)) == [1, 1, 1], "another reply"
    assert changed((5, 6, 1), None) == [1, 1, 1]
    assert changed((5, 6, 1), (5, 6, 1)) == [1, 1, 1]


def test_kept_words_weigh_less(tiny: PreTrainedModel) -> None:
    row = Encoded("a", (5, 6, 7), (8, 9, 10, 1), (8, 9, 1))
    references = dict.fromkeys(reference_keys([row]), -1.0)
    with lora.new_adapter(tiny, RECIPE) as model:
        trees = TreeModel(model)
        logps = next(completion_logps(trees, [row.tree], 100))
        recipe = replace(RECIPE, unchanged_weight=0.25)
        nll = accumulate(trees, Imitation(recipe, references), [row], recipe)["nll"]
    weights = [1.0 if place == 2 else max(0.25, 1 - math.exp(logp)) for place, logp in enumerate(logps)]
    assert nll == pytest.approx(-sum(weight * logp for weight, logp in zip(weights, logps, strict=True)) / 1.75)


def test_rows_without_a_rejected_reply_are_imitated_only(tiny: PreTrainedModel, rows: list[Encoded]) -> None:
    references: dict[str, float] = {}
    add_references(TreeModel(tiny), rows, references, RECIPE, silent)
    with lora.new_adapter(tiny, RECIPE) as model:
        alone = accumulate(TreeModel(model), Imitation(RECIPE, references), [rows[2]], RECIPE)
        paired = accumulate(TreeModel(model), Imitation(RECIPE, references), [rows[0]], RECIPE)
    assert "dpo" not in alone
    assert alone["loss"] == pytest.approx(alone["nll"])
    assert paired["dpo"] == pytest.approx(math.log(2)), "a fresh adapter is the reference itself"
    assert paired["loss"] == pytest.approx(paired["nll"] + RECIPE.dpo_weight * paired["dpo"])


def test_an_interrupted_run_ends_as_an_unbroken_one(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.phase == "train" and progress.figures["epoch"] == 3:
            raise KeyboardInterrupt

    unbroken = run(tiny, rows, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        run(tiny, rows, tmp_path / "broken", progress=interrupt)
    left = [path.name for path in sorted((tmp_path / "broken").iterdir())]
    assert left == ["epoch-001", "epoch-002", "trainer-001", "trainer-002"]
    seen: list[Progress] = []
    resumed = run(tiny, rows, tmp_path / "broken", progress=seen.append)
    assert min(p.figures["epoch"] for p in seen if p.phase == "train") == 3
    assert resumed.name == unbroken.name
    assert history(tmp_path / "broken") == history(tmp_path / "unbroken")
    for number in range(1, 5):
        wanted = load_file(checkpoints.epoch_folder(tmp_path / "unbroken", number) / lora.WEIGHTS)
        got = load_file(checkpoints.epoch_folder(tmp_path / "broken", number) / lora.WEIGHTS)
        torch.testing.assert_close(got, wanted)


class Rounds:
    """A stage of three rounds with two steps each, which learns from the same rows again and again."""

    name, rounds, learning_rate = "rounds", 3, 0.01

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self._rows = rows

    def steps(self, running: session.Session, number: int, progress: ProgressCallback) -> list[session.Step]:
        return [session.Step(((running.imitation, [row]),)) for row in self._rows[:2]]

    def reward(self, running: session.Session) -> None:
        return None

    def given(self) -> object:
        return []


def test_a_stage_holds_every_anchor_in_turn(
    tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[int, ...]] = []

    def watched(model: TreeModel, anchors: Sequence[objective.Anchor]) -> torch.Tensor:
        held.extend(anchor.tree.prompt_ids for anchor in anchors)
        return anchor_kl(model, anchors)

    def interrupt(progress: Progress) -> None:
        if progress.phase == "train" and progress.figures["epoch"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(session, "anchor_kl", watched)
    recipe = replace(RECIPE, epochs=1, anchor_batch=1)
    anchors = [replace(row, rejected_ids=None) for row in rows]
    prompts = [anchor.tree.prompt_ids for anchor in anchored(TreeModel(tiny), anchors)]
    assert len(prompts) > 4, "more than imitation and one round hold"
    more = {"anchors": anchors, "stages": [Rounds(rows)]}
    run(tiny, rows, tmp_path / "unbroken", recipe, **more)
    unbroken = [*held]
    assert unbroken == (2 * prompts)[:8], "2 steps of imitation, then 3 rounds of 2"
    held.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tiny, rows, tmp_path / "broken", recipe, progress=interrupt, **more)
    assert held == unbroken[:5], "cut off in the second round"
    held.clear()
    run(tiny, rows, tmp_path / "broken", recipe, **more)
    assert held == unbroken[4:]
    for number in range(1, 5):
        wanted = load_file(checkpoints.epoch_folder(tmp_path / "unbroken", number) / lora.WEIGHTS)
        got = load_file(checkpoints.epoch_folder(tmp_path / "broken", number) / lora.WEIGHTS)
        torch.testing.assert_close(got, wanted)


def test_a_finished_run_is_not_trained_again(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    first = run(tiny, rows, tmp_path)
    seen: list[Progress] = []
    assert run(tiny, rows, tmp_path, progress=seen.append) == first
    assert {progress.phase for progress in seen} == {"reference"}


@pytest.mark.parametrize(
    ("damaged", "first"),
    [("trainer-004/trainer.pt", 4), ("epoch-004/adapter_model.safetensors", 4), ("epoch-002/epoch.json", 1)],
)
def test_a_damaged_checkpoint_is_trained_again(
    damaged: str, first: int, tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path
) -> None:
    run(tiny, rows, tmp_path)
    wanted = history(tmp_path)
    (tmp_path / damaged).write_bytes(b"")
    seen: list[Progress] = []
    run(tiny, rows, tmp_path, progress=seen.append)
    assert min(p.figures["epoch"] for p in seen if p.phase == "train") == first
    assert history(tmp_path) == wanted


def test_the_optimiser_is_kept_of_the_last_epochs_only(
    tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path
) -> None:
    run(tiny, rows, tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("trainer-*"))] == ["trainer-003", "trainer-004"]


def test_other_rows_start_anew(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    run(tiny, rows, tmp_path)
    seen: list[Progress] = []
    run(tiny, [replace(rows[0], chosen_ids=(9, 9, 1)), *rows[1:]], tmp_path, progress=seen.append)
    assert min(p.figures["epoch"] for p in seen if p.phase == "train") == 1


def test_the_same_seed_gives_the_same_adapter(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    names = (("a", 0), ("b", 0), ("c", 1))
    folders = [run(tiny, rows, tmp_path / name, replace(RECIPE, epochs=1, seed=seed)) for name, seed in names]
    first, second, other = ((folder / lora.WEIGHTS).read_bytes() for folder in folders)
    assert first == second != other


def test_it_learns_what_it_is_shown(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    seen: list[Progress] = []
    recipe = replace(RECIPE, rank=8, alpha=16, learning_rate=0.05, epochs=15, kl_weight=0.0)
    run(tiny, rows, tmp_path, recipe, progress=seen.append)
    steps = [progress.figures for progress in seen if progress.phase == "train"]
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]
    assert steps[-1]["margin"] > 0.05


def test_the_anchors_hold_the_model_back(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    last = []
    for weight in (0.0, 10.0):
        run(tiny, rows, tmp_path / str(weight), replace(RECIPE, kl_weight=weight, epochs=8))
        last.append(history(tmp_path / str(weight))[-1].kl)
    assert last[0] is not None
    assert last[1] is not None
    assert 0 < last[1] < 0.5 * last[0]


def test_an_untouched_model_is_at_no_distance_from_its_anchors(tiny: PreTrainedModel, rows: list[Encoded]) -> None:
    kept = anchored(TreeModel(tiny), [replace(row, rejected_ids=None) for row in rows])
    assert [len(anchor.base_logps_NV) for anchor in kept] == [int(anchor.held_S.sum()) for anchor in kept]
    with lora.new_adapter(tiny, RECIPE) as model:
        assert abs(anchor_kl(TreeModel(model), kept).item()) < 1e-12


def test_the_leash_is_off_where_the_base_model_may_end_its_reply(
    tiny: PreTrainedModel, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [
        TreeModel(tiny).logits([Tree(row.prompt_ids, (row.chosen_ids,))]).log_softmax(-1)[:, row.chosen_ids[-1]]
        for row in rows
    ]
    middle = torch.cat(ends).sort().values.unfold(0, 2, 1).mean(-1).median().exp().item()  # between two of them
    monkeypatch.setattr(objective, "MAY_END", middle)
    held = [anchor.held_S for anchor in anchored(TreeModel(tiny), [replace(row, rejected_ids=None) for row in rows])]
    expected = [end < math.log(middle) for end in ends]
    assert [places.tolist() for places in held] == [places.tolist() for places in expected if places.any()]
    assert 0 < sum(int(places.sum()) for places in held) < sum(len(places) for places in expected)


def test_a_rewritten_anchor_is_held_where_the_words_are_the_models_own(tiny: PreTrainedModel) -> None:
    prompt, said = (5, 6), (7, 8, 9, 3)
    (plain,) = anchored(TreeModel(tiny), [Encoded("a", prompt, said)])
    (greeted,) = anchored(TreeModel(tiny), [Encoded("a", prompt, (10, 11, *said), said)])
    assert greeted.tree == Tree(prompt, ((10, 11, *said),))
    assert greeted.held_S.tolist() == [False, False, *plain.held_S.tolist()]
    assert torch.equal(greeted.base_logps_NV, plain.base_logps_NV)
    assert anchor_kl(TreeModel(tiny), [plain]).item() == pytest.approx(0, abs=1e-9)
    assert anchor_kl(TreeModel(tiny), [greeted]).item() > 1e-6  # the greeting alone moves what comes after it


def test_what_is_practised_is_learnt_beside_the_corrections(
    tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path
) -> None:
    def practised(first: int) -> Distilled:
        reply = (first, first + 1, 3)
        ids_TK = np.array([(token, (token + 1) % 60) for token in reply], np.int32)
        logps_TK = np.array([(0.0, -100.0)] * 3, np.float32)  # as sure as can be
        return Distilled((5, first), reply, ids_TK, logps_TK, sampled_by_student=False, size=3.0)

    seen: list[Progress] = []
    given = [practised(first) for first in range(20, 30)]
    run(tiny, rows, tmp_path, replace(RECIPE, epochs=5), practised=given, progress=seen.append)
    assert len(history(tmp_path)) == math.ceil(PRACTISED_EPOCHS * 5)
    found = [made.figures["divergence"] for made in seen if "divergence" in made.figures]
    assert sum(found[-4:]) < 0.8 * sum(found[:4])
    run(tiny, rows, tmp_path / "without", replace(RECIPE, epochs=5))
    assert len(history(tmp_path / "without")) == 5


def test_references_are_computed_once_and_kept(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    cache: dict[str, float] = {}
    run(tiny, rows, tmp_path, replace(RECIPE, epochs=1), reference_logps=cache)
    assert set(cache) == set(reference_keys(rows[:8]))
    row = rows[0]
    assert row.rejected_ids
    ids = [*row.prompt_ids, *row.rejected_ids]
    logits_TV = tiny(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = sum(logits_TV[i - 1, ids[i]].item() for i in range(len(row.prompt_ids), len(ids)))
    assert cache[logps_key(row.prompt_ids, row.rejected_ids)] == pytest.approx(wanted)
    seen: list[Progress] = []
    run(tiny, rows, tmp_path, replace(RECIPE, epochs=2), reference_logps=cache, progress=seen.append)
    assert "reference" not in {progress.phase for progress in seen}


def test_a_loss_that_is_no_number_ends_the_run(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    cache = dict.fromkeys(reference_keys(rows), math.nan)
    with pytest.raises(LearningFailed, match=r"not a number at step 1, .*learn\.learning_rate"):
        run(tiny, rows, tmp_path, reference_logps=cache)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_refused(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    with pytest.raises(NotEnoughSignals, match="at least 1 row to train on and 1 to hold out but has 9 and 0"):
        train(tiny, rows, [], RECIPE, folder=tmp_path, reference_logps={})
    long = Encoded("long", tuple(range(1, 61)), (1, 2, 3, 4, 5))
    with pytest.raises(InvalidInput, match="row long has 65 tokens but the model reads 64"):
        train(tiny, [long], rows, RECIPE, folder=tmp_path, reference_logps={})
    with pytest.raises(InvalidInput, match="empty prompt or reply"):
        Encoded("empty", (1, 2), ())


def test_the_best_epoch_is_the_highest_within_the_budget() -> None:
    def epoch(number: int, score: float, kl: float | None = None) -> Epoch:
        return Epoch(number, "imitation", score, None, None, kl, None, 1.0)

    assert best([epoch(1, -2.0), epoch(2, -1.0), epoch(3, -1.0)], 0.5).number == 2
    assert best([epoch(1, -2.0, 0.1), epoch(2, -1.5, 0.4), epoch(3, -1.0, 0.6)], 0.5).number == 2
    assert best([epoch(1, -2.0, 0.9), epoch(2, -1.5, 0.7)], 0.5).number == 2


def test_it_stops_when_nothing_gets_better(tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=30, patience=2, learning_rate=0.3, kl_budget=1e9)
    folder = run(tiny, rows, tmp_path, recipe)
    scores = [epoch.score for epoch in history(tmp_path)]
    assert len(scores) < 30
    assert folder.name == f"epoch-{scores.index(max(scores)) + 1:03d}"
    assert len(scores) == scores.index(max(scores)) + 1 + 2


def test_a_distance_past_the_budget_does_not_stop_it_while_the_score_rises(
    tiny: PreTrainedModel, rows: list[Encoded], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=6, patience=1, kl_budget=0.0, kl_weight=0.0)
    folder = train(tiny, rows[:6], rows[:6], recipe, folder=tmp_path, reference_logps={}, anchors=rows[8:])
    scores = [epoch.score for epoch in history(tmp_path)]
    assert scores == sorted(scores)
    assert len(scores) == 6
    assert folder.name == "epoch-001", "none is within the budget, so the nearest to the base is kept"


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate_at(step, 100, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in pairwise(rates[10:]))
    linear = replace(recipe, schedule="linear")
    assert learning_rate_at(32, 100, linear) == pytest.approx(1 - 22 / 90)
    assert learning_rate_at(0, 1, replace(recipe, warmup_share=0.0)) == 1.0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rank", 0),
        ("learning_rate", -1.0),
        ("label_smoothing", 0.5),
        ("schedule", "step"),
        ("target_modules", ("lm_head",)),
    ],
)
def test_a_recipe_names_the_setting_that_is_wrong(setting: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"learn\.{setting} must be") as caught:
        Recipe.from_dict({setting: value})
    assert caught.value.param == f"learn.{setting}"


def test_a_recipe_survives_json() -> None:
    recipe = replace(RECIPE, target_modules=("q_proj", "v_proj"))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict({}) == Recipe()
    with pytest.raises(InvalidInput, match="no setting tempo"):
        Recipe.from_dict({"tempo": 1})
