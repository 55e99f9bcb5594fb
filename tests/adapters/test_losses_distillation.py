"""Distillation against loops in plain Python, and what holds for every divergence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from familiar.adapters.distillation import Direction, distillation_loss
from familiar.memory.errors import InvalidInput

DIRECTIONS: tuple[Direction, ...] = ("reverse", "forward", "jsd")


def logits(rows: int, vocabulary: int, seed: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp((value - max(values)) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def divergence(student: list[float], teacher: list[float], direction: Direction, share: float = 0.5) -> float:
    if direction == "reverse":
        return kl(student, teacher)
    if direction == "forward":
        return kl(teacher, student)
    mixture = [(1 - share) * s + share * t for s, t in zip(student, teacher, strict=True)]
    return share * kl(teacher, mixture) + (1 - share) * kl(student, mixture)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_full_vocabulary_against_its_formula(direction: Direction, temperature: float) -> None:
    student_NV, teacher_NV = logits(4, 9, seed=1), logits(4, 9, seed=2)
    got = distillation_loss(
        student_NV, teacher_NV.log_softmax(-1), direction=direction, temperature=temperature, teacher_share=0.2
    )
    for value, student, teacher in zip(got, student_NV.tolist(), teacher_NV.tolist(), strict=True):
        wanted = divergence(softmax(student, temperature), softmax(teacher, temperature), direction, 0.2)
        assert value.item() == pytest.approx(wanted)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_top_tokens_against_the_formula_with_one_outcome_for_the_rest(direction: Direction) -> None:
    student_NV, teacher_NV = logits(4, 9, seed=3), logits(4, 9, seed=4)
    top = teacher_NV.log_softmax(-1).topk(3)
    got = distillation_loss(student_NV, (top.indices.int(), top.values), direction=direction)
    for value, student, teacher, ids in zip(
        got, student_NV.tolist(), teacher_NV.tolist(), top.indices.tolist(), strict=True
    ):
        merged = []
        for probabilities in (softmax(student), softmax(teacher)):
            kept = [probabilities[i] for i in ids]
            merged.append([*kept, 1 - sum(kept)])
        assert value.item() == pytest.approx(divergence(merged[0], merged[1], direction))


@given(st.integers(0, 10**6), st.sampled_from(DIRECTIONS), st.integers(1, 8), st.floats(0.1, 30))
@settings(max_examples=40, deadline=None)
def test_a_divergence_is_at_least_0_and_no_less_with_more_of_the_teacher(
    seed: int, direction: Direction, k: int, spread: float
) -> None:
    student_NV, teacher_NV = logits(3, 8, seed, spread), logits(3, 8, seed + 1, spread).log_softmax(-1)
    top = teacher_NV.topk(k)
    partly = distillation_loss(student_NV, (top.indices, top.values), direction=direction)
    fully = distillation_loss(student_NV, teacher_NV, direction=direction)
    # the rest is held above float32's rounding, 1e-7, which costs the student that much times its distance
    slack = 1e-7 * (1 + 8 * spread)
    assert bool((partly >= -1e-9).all())
    assert bool((partly <= fully + slack).all())
    if direction == "jsd":
        assert bool((fully <= math.log(2) + 1e-9).all())
    if k == 8:
        torch.testing.assert_close(partly, fully)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("k", [2, 6])
def test_the_student_comes_to_say_what_the_teacher_says(direction: Direction, k: int) -> None:
    teacher_NV = logits(2, 6, seed=5, spread=1.0).log_softmax(-1)
    top = teacher_NV.topk(k)
    student_NV = logits(2, 6, seed=6, spread=1.0).requires_grad_()
    optimiser = torch.optim.SGD([student_NV], lr=3.0)
    for _ in range(200):
        optimiser.zero_grad()
        distillation_loss(student_NV, (top.indices, top.values), direction=direction).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    got = student_NV.detach().log_softmax(-1).gather(-1, top.indices)
    torch.testing.assert_close(got, top.values, rtol=0, atol=1e-2)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradients_stay_finite_where_the_top_token_is_all_there_is(direction: Direction) -> None:
    """In float32 a sure student's, or teacher's, other tokens add up to a rounding error."""
    sure, torn = torch.tensor([[60.0, 0.0, -60.0, 1.0]]), torch.zeros(1, 4)
    for student_NV, teacher_NV in ((sure, torn), (torn, sure), (sure, sure), (sure, sure.flip(-1))):
        student_NV = student_NV.clone().requires_grad_()
        top = teacher_NV.log_softmax(-1).topk(1)
        loss = distillation_loss(student_NV, (top.indices, top.values), direction=direction).sum()
        (gradient_NV,) = torch.autograd.grad(loss, student_NV)
        assert bool(loss.isfinite())
        assert bool(gradient_NV.isfinite().all())


def test_the_teacher_gets_no_gradient() -> None:
    student_NV, teacher_NV = (
        logits(2, 5, seed=7).requires_grad_(),
        logits(2, 5, seed=8).log_softmax(-1).requires_grad_(),
    )
    top = teacher_NV.topk(2)
    for teacher in (teacher_NV, (top.indices, top.values)):
        loss = distillation_loss(student_NV, teacher).sum()
        assert torch.autograd.grad(loss, teacher_NV, allow_unused=True)[0] is None


def test_a_temperature_is_refused_where_the_rest_is_unknown() -> None:
    top = logits(2, 5, seed=9).log_softmax(-1).topk(2)
    with pytest.raises(InvalidInput, match="full vocabulary but has its top 2"):
        distillation_loss(logits(2, 5, seed=10), (top.indices, top.values), temperature=2.0)
