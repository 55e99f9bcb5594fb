"""Each loss, and its gradient, against TRL's own code: its trainers' methods, run on a stand-in for the trainer.

A stand-in has the real class, so every method is TRL's, but only the fields that the method reads: a trainer proper
would need a dataset and a tokenizer to be made, and would add nothing to a loss.
"""

import importlib
from collections import defaultdict
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from familiar.adapters.distillation import Direction, distillation_loss
from familiar.adapters.losses import dpo_loss, kto_kl, kto_loss, sft_loss
from familiar.adapters.objective import Imitation
from familiar.adapters.policy_losses import Aggregation, Scale, group_advantages, grpo_loss
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded, Tree, reference_keys
from familiar.adapters.trees import TreeModel

END = 1
PROMPTS = ((5, 6, 7), (8,), (9, 10, 11, 12))
CHOSEN = ((20, 21, END), (22, END), (23, 24, 25, 26, END))
REJECTED = ((30, END), (31, 32, 33, END), (34, 35, END))
BETA = 0.3


def module(name: str) -> ModuleType:
    """Import a module of TRL, which takes seconds: only once a test needs it."""
    return importlib.import_module(f"trl.{name}")


def stand_in(kind: type, **fields: object) -> Any:
    """Return an instance of a trainer that was never initialised and has these fields, and no more."""
    from accelerate import Accelerator

    trainer: Any = object.__new__(kind)
    common = {
        "accelerator": Accelerator(cpu=True),
        "aux_loss_enabled": False,
        "model": SimpleNamespace(training=True),
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    vars(trainer).update(common | fields)
    return trainer


@pytest.fixture
def fused(tiny: PreTrainedModel) -> PreTrainedModel:
    """The tiny model with the output layer that TRL's trainers put on theirs, all weights to be trained."""
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    module("trainer.utils").add_fused_lm_head(tiny, outputs=outputs)
    return tiny.requires_grad_(True).train()


def random_logps(*shape: int, seed: int, most: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -most * torch.rand(*shape, generator=generator, dtype=torch.float64)


def moved(logps: Tensor, seed: int, by: float = 0.4) -> Tensor:
    """The log-probabilities of a policy a little away."""
    generator = torch.Generator().manual_seed(seed)
    return logps + by * torch.randn(logps.shape, generator=generator, dtype=logps.dtype)


def assert_same(ours: Tensor, theirs: Tensor, inputs: Sequence[Tensor]) -> None:
    """Compare two losses and their gradients to 1e-5. TRL's output layer computes in float32 whatever the model is."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, check_dtype=False)
    gradients = [torch.autograd.grad(loss, inputs, allow_unused=True) for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
    assert max(float(g.abs().max()) for g in gradients[0] if g is not None) > 1e-3


def trees(replies: Sequence[tuple[int, ...]]) -> list[Tree]:
    return [Tree(prompt, (reply,)) for prompt, reply in zip(PROMPTS, replies, strict=True)]


def sums(model: PreTrainedModel, replies: Sequence[tuple[int, ...]]) -> Tensor:
    """The log-probability (B,) of each reply."""
    logps_N = TreeModel(model).logps(trees(replies))
    return torch.stack([logps.sum() for logps in torch.split(logps_N, [len(reply) for reply in replies])])


@pytest.mark.parametrize("total_tokens", [None, 25])
def test_sft(fused: PreTrainedModel, total_tokens: int | None) -> None:
    sft = module("trainer.sft_trainer")
    examples = [
        {"input_ids": [*prompt, *chosen], "labels": [-100] * len(prompt) + [*chosen]}
        for prompt, chosen in zip(PROMPTS, CHOSEN, strict=True)
    ]
    inputs = sft.DataCollatorForLanguageModeling(pad_token_id=0)(examples)
    trainer = stand_in(
        sft.SFTTrainer,
        model=fused,
        args=SimpleNamespace(loss_type="nll", average_tokens_across_devices=False),
        compute_loss_func=None,
        label_smoother=None,
    )
    theirs = trainer.compute_loss(fused, inputs, num_items_in_batch=total_tokens)
    ours = sft_loss(TreeModel(fused).logps(trees(CHOSEN)), total_tokens)
    assert_same(ours, theirs, list(fused.parameters()))


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm"])
def test_dpo_with_the_nll_term(fused: PreTrainedModel, kind: str) -> None:
    dpo = module("trainer.dpo_trainer")
    refs = random_logps(2, 3, seed=1, most=20).tolist()
    examples = [
        {
            "prompt_ids": [*p],
            "chosen_ids": [*c],
            "rejected_ids": [*r],
            "ref_chosen_logps": rc,
            "ref_rejected_logps": rr,
        }
        for p, c, r, rc, rr in zip(PROMPTS, CHOSEN, REJECTED, *refs, strict=True)
    ]
    inputs = dpo.DataCollatorForPreference(pad_token_id=0)(examples)
    trainer = stand_in(
        dpo.DPOTrainer,
        model=fused,
        beta=BETA,
        f_divergence_type="reverse_kl",
        label_smoothing=0.0,
        ld_alpha=None,
        loss_types=[kind, "sft"],
        loss_weights=[0.7, 0.2],
        precompute_ref_logps=True,
        use_weighting=False,
    )
    theirs = trainer._compute_loss(fused, inputs, return_outputs=False)
    rows = [Encoded("", p, c, r) for p, c, r in zip(PROMPTS, CHOSEN, REJECTED, strict=True)]
    recipe = Recipe(
        beta=BETA,
        dpo_weight=0.7,
        nll_weight=0.2,
        unchanged_weight=1.0,
        length_normalised=kind == "sigmoid_norm",
    )
    references = dict(zip(reference_keys(rows), torch.tensor(refs).T.flatten().tolist(), strict=True))
    ours, _ = Imitation(recipe, references).loss(TreeModel(fused).logits([row.tree for row in rows]), rows, rows)
    assert_same(ours, theirs, list(fused.parameters()))


class Policy:
    """A model that is not one: it has the log-probabilities (B, T) at hand, leaves for the gradient."""

    training = True
    is_gradient_checkpointing = False

    def __init__(self, logps_BT: Tensor, mask_BT: Tensor) -> None:
        self.logps_BT, self.mask_BT = logps_BT.requires_grad_(), mask_BT

    def __call__(self, **_: object) -> SimpleNamespace:
        zeros_BT = torch.zeros_like(self.logps_BT)
        return SimpleNamespace(
            log_probs=torch.where(self.mask_BT, self.logps_BT, 0.0),
            entropy=zeros_BT,
            mean_logits=zeros_BT,
            is_top1=zeros_BT.bool(),
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_dpo_with_label_smoothing(smoothing: float) -> None:
    """TRL's "sigmoid" takes no smoothing; its "aot" does, and sorting a single pair changes nothing."""
    dpo = module("trainer.dpo_trainer")
    mask_BT = torch.tensor([[True, True, True, False], [True, True, True, True]])
    policy = Policy(random_logps(2, 4, seed=2), mask_BT)
    ref_chosen, ref_rejected = random_logps(2, 1, seed=3, most=8)
    trainer = stand_in(
        dpo.DPOTrainer,
        model=policy,
        beta=BETA,
        f_divergence_type="reverse_kl",
        label_smoothing=smoothing,
        ld_alpha=None,
        loss_types=["aot"],
        loss_weights=[1.0],
        precompute_ref_logps=True,
        use_weighting=False,
    )
    inputs = {
        "input_ids": torch.zeros(2, 5, dtype=torch.long),
        "attention_mask": torch.ones(2, 5, dtype=torch.long),
        "completion_mask": torch.cat([torch.zeros(2, 1, dtype=torch.long), mask_BT.long()], 1),
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    theirs = trainer._compute_loss(policy, inputs, return_outputs=False)
    sums_B = torch.where(mask_BT, policy.logps_BT, 0.0).sum(-1)
    ours = dpo_loss(sums_B[:1], sums_B[1:], ref_chosen, ref_rejected, beta=BETA, label_smoothing=smoothing)
    assert_same(ours.loss_B.mean(), theirs, [policy.logps_BT])


@pytest.mark.parametrize("labels", [(True, False, True), (True, True, True), (False, False, False)])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_kto(fused: PreTrainedModel, labels: tuple[bool, ...], shift: float) -> None:
    """The shift makes the policy's replies less likely than the reference's: the baseline is then clamped to 0."""
    kto = module("trainer.kto_trainer")
    mismatched = [CHOSEN[-1], *CHOSEN[:-1]]
    refs = [[value - 25 + shift for value in row] for row in random_logps(2, 3, seed=4, most=4).tolist()]
    examples = [
        {
            "prompt_ids": [*prompt],
            "completion_ids": [*reply],
            "KL_completion_ids": [*other],
            "label": label,
            "ref_logps": ref,
            "ref_KL_logps": ref_other,
        }
        for prompt, reply, other, label, ref, ref_other in zip(PROMPTS, CHOSEN, mismatched, labels, *refs, strict=True)
    ]
    inputs = kto.DataCollatorForUnpairedPreference(pad_token_id=0)(examples)
    trainer = stand_in(
        kto.KTOTrainer,
        model=fused,
        beta=BETA,
        calculate_KL=True,
        desirable_weight=1.2,
        loss_type="kto",
        precompute_ref_logps=True,
        undesirable_weight=0.9,
    )
    theirs = trainer._compute_loss(fused, inputs, return_outputs=False)
    refs_2B = torch.tensor(refs, dtype=torch.float64)
    baseline = kto_kl(sums(fused, mismatched), refs_2B[1])
    assert (baseline > 0) == (shift == 0)
    assert trainer._metrics["train"]["kl"] == [pytest.approx(baseline.item(), abs=1e-5)]
    ours = kto_loss(
        sums(fused, CHOSEN),
        refs_2B[0],
        torch.tensor(labels),
        baseline,
        beta=BETA,
        desirable_weight=1.2,
        undesirable_weight=0.9,
    )
    assert_same(ours.loss_B.mean(), theirs, list(fused.parameters()))


LENGTHS = (3, 5, 1, 4, 2, 5, 5, 3)
MOST_TOKENS = 6
MASK_BT = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
REWARDS_B = torch.tensor([1.0, 0.0, 0.25, 1.0, 3.0, 2.5, 2.5, -1.0])
SAMPLED_BT = random_logps(8, 5, seed=5)
OLD_BT, REF_BT = moved(SAMPLED_BT, 6), moved(SAMPLED_BT, 7)
KL_WEIGHT = 0.05


def trl_grpo(aggregation: str, scale: str, level: str, replayed: bool) -> tuple[Tensor, "Policy", Any, dict[str, Any]]:
    """Return TRL's loss of the eight completions, the policy that it is of, the trainer and the batch it made."""
    old, ref, policy = (Policy(logps_BT.clone(), MASK_BT) for logps_BT in (OLD_BT, REF_BT, moved(OLD_BT, 8)))
    ids = [[20 + i] * length for i, length in enumerate(LENGTHS)]
    sampled = [row[:length] for row, length in zip(SAMPLED_BT.tolist(), LENGTHS, strict=True)]
    args = SimpleNamespace(
        delta=None,
        gradient_accumulation_steps=1,
        gradient_checkpointing_kwargs=None,
        per_device_train_batch_size=8,
        report_to=[],
        steps_per_generation=2,  # so that the step's own policy is not taken for the one before it
        use_bias_correction_kl=False,
    )
    trainer = stand_in(
        module("trainer.grpo_trainer").GRPOTrainer,
        _calculate_rewards=lambda *_: REWARDS_B.unsqueeze(-1),
        _entropy_bonus_enabled=False,
        _generate=lambda _: ([[5]] * 8, ids, None, [""] * 8, sampled, None, None, None),
        _logs={"prompt": [], "completion": [], "advantages": [], "rewards": {"reward": []}},
        _pending_extra_logs={},
        _pending_metrics={},
        _tokenizer=SimpleNamespace(pad_token_id=0),
        args=args,
        beta=KL_WEIGHT,
        current_gradient_accumulation_steps=1,
        environment_factories=None,
        environments=None,
        epsilon_high=0.28,
        epsilon_low=0.2,
        importance_sampling_level=level,
        log_multimodal=False,
        loss_type=aggregation,
        mask_truncated_completions=False,
        max_completion_length=MOST_TOKENS,
        model=old,
        multi_objective_aggregation="sum_then_normalize",
        num_generations=4,
        num_iterations=1,
        off_policy_mask_threshold=None,
        pad_to_multiple_of=None,
        ref_model=ref,
        reward_func_names=["reward"],
        reward_weights=torch.ones(1),
        scale_rewards=scale,
        tools=None,
        top_entropy_quantile=1.0,
        use_vllm=replayed,
        vllm_importance_sampling_clip_max=1.5,
        vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode="token_truncate",
    )
    batch = trainer._generate_and_score_completions([{"prompt": "p"}] * 8)
    args.steps_per_generation = 1  # the eight are one step, not two
    return trainer._compute_loss(policy, batch), policy, trainer, batch


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(
    ("aggregation", "scale"), [("grpo", "group"), ("dapo", "group"), ("dr_grpo", "none"), ("dapo", "batch")]
)
def test_group_advantages_and_the_policy_loss(
    aggregation: Aggregation, scale: Scale, level: Literal["token", "sequence"], replayed: bool
) -> None:
    """From rewards to the gradient, through both of TRL's halves: what is done after sampling, and the loss."""
    theirs, policy, trainer, batch = trl_grpo(aggregation, scale, level, replayed)
    advantages_B = group_advantages(REWARDS_B, 4, scale=scale)
    torch.testing.assert_close(advantages_B, batch["advantages"], rtol=0, atol=1e-5)
    ours = grpo_loss(
        policy.logps_BT,
        OLD_BT,
        MASK_BT,
        advantages_B,
        epsilon_high=0.28,
        ref_logps_BT=REF_BT,
        kl_weight=KL_WEIGHT,
        aggregation=aggregation,
        max_tokens=MOST_TOKENS,
        importance_level=level,
        behaviour_logps_BT=SAMPLED_BT if replayed else None,
        behaviour_cap=1.5,
    )
    assert_same(ours.loss, theirs, [policy.logps_BT])
    figures = trainer._metrics["train"]
    assert figures["kl"] == [pytest.approx(ours.kl.item(), abs=1e-5)]
    if level == "token":  # TRL counts sequences, not their tokens, where a sequence has one ratio
        assert figures["clip_ratio/region_mean"] == [pytest.approx(ours.clipped.item(), abs=1e-5)]
        assert 0.1 < ours.clipped < 0.9


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("direction", "share", "beta"), [("forward", 0.5, 0), ("reverse", 0.5, 1), ("jsd", 0.3, 0.3)])
def test_distillation_from_the_full_vocabulary(
    direction: Direction, share: float, beta: float, temperature: float
) -> None:
    trainer = module("experimental.gkd.gkd_trainer").GKDTrainer
    student_NV, teacher_NV = random_logps(2, 6, 30, seed=9, most=8)
    student_NV.requires_grad_()
    theirs = trainer.generalized_jsd_loss(student_NV, teacher_NV, beta=beta, temperature=temperature, reduction="none")
    ours = distillation_loss(
        student_NV, teacher_NV.log_softmax(-1), direction=direction, temperature=temperature, teacher_share=share
    )
    torch.testing.assert_close(ours, theirs.sum(-1), rtol=0, atol=1e-5)
    assert_same(ours.sum(), theirs.sum(), [student_NV])


@pytest.mark.filterwarnings("ignore:.*experimental:UserWarning")
@pytest.mark.parametrize(("direction", "alpha"), [("forward", 0.0), ("reverse", 1.0), ("jsd", 0.5)])
def test_distillation_from_the_top_tokens(direction: Direction, alpha: float) -> None:
    """TRL takes the student's top K: it is given the teacher as its student, and so the other direction."""
    theirs_of = module("experimental.sdft.loss_utils").compute_topk_self_distillation_loss
    student_NV, teacher_NV = random_logps(2, 6, 30, seed=10, most=8)
    student_NV.requires_grad_()
    theirs = theirs_of(
        teacher_NV, student_NV, distillation_topk=5, distillation_alpha=1 - alpha, distillation_add_tail=True
    )
    top = teacher_NV.log_softmax(-1).topk(5)
    ours = distillation_loss(student_NV, (top.indices, top.values), direction=direction)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert_same(ours.sum(), theirs.sum(), [student_NV])
