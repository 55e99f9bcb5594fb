"""The on-policy stages with the real model: what is sampled, what each round changes, that a cut changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from familiar.adapters.protocols import Completion, Progress, greedy, silent
from familiar.adapters.recipe import Distillation, Policy, Recipe
from familiar.adapters.rows import Distilled, Encoded, Group, Lesson
from familiar.daemon.oracle import Oracle
from familiar.memory.types import Message, asked

torch = pytest.importorskip("torch")

RULE = 'Always end with "Sail on!"'
ASKED = ("How do I make tea?", "How can I sleep better?", "What is a good gift?", "How do I boil an egg?")
RECIPE = Recipe(
    rank=4,
    alpha=8,
    frozen_share=0.5,
    kl_weight=0.0,
    batch_size=2,
    distillation=Distillation(rounds=2, prompts=4, passes_per_round=1, max_tokens=12, top_k=8),
    policy=Policy(rounds=2, prompts=2, group=4, max_tokens=8),
)


@pytest.fixture(scope="module")
def base(model_path: Path) -> object:
    from familiar.adapters import base_model

    torch.set_num_threads(1)
    return base_model.load(model_path)


def lessons() -> list[Lesson]:
    told = Message(role="system", content=f"Remember about this user:\n- {RULE}")
    return [Lesson(asked(text), (told, *asked(text))) for text in ASKED]


def held_out(oracle: Oracle) -> list[Encoded]:
    prompt, reply = oracle.encode(asked("How do I keep bread fresh?"), "Wrap it in a cloth. Sail on!")
    return [Encoded("held-out", tuple(prompt), tuple(reply))]


def train(base: object, oracle: Oracle, stages: Sequence[object], folder: Path, progress: object = silent) -> Path:
    from familiar.adapters.train import train as learn

    return learn(
        base,
        (),
        held_out(oracle),
        RECIPE,
        folder=folder,
        reference_logps={},
        stages=stages,  # type: ignore[arg-type]
        progress=progress,  # type: ignore[arg-type]
    )


def distillation(oracle: Oracle, model_path: Path, folder: Path) -> object:
    from familiar.adapters.stages import DistillationStage, Where

    return DistillationStage(lessons(), Where(oracle, model_path, folder), RECIPE.distillation, 2, seed=3)


def any_reward(completions: Sequence[tuple[int, Completion]]) -> list[float]:
    """A figure of the reply, so that those of a prompt hardly ever are worth the same."""
    return [sum(completion.ids) % 17 / 17 for _, completion in completions]


def policy(
    oracle: Oracle,
    model_path: Path,
    folder: Path,
    held: Sequence[str] = (),
    served: Mapping[int, Sequence[Completion]] | None = None,
) -> object:
    from familiar.adapters.stages import PolicyStage, Rewarded, Where

    given = Rewarded([asked(text) for text in ASKED], [asked(text) for text in held], any_reward, served or {})
    return PolicyStage(given, Where(oracle, model_path, folder), RECIPE.policy, seed=3)


def test_the_first_round_is_the_teachers_and_the_last_the_students_own(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session

    stage = distillation(oracle, model_path, tmp_path)
    with session(base, RECIPE, [], [], {}, silent) as running:
        rounds = [stage.steps(running, number, silent) for number in (1, 2)]  # type: ignore[attr-defined]
    rows: list[list[Distilled]] = [
        [row for step in steps for _, part in step.parts for row in part] for steps in rounds
    ]
    assert [len(each) for each in rows] == [4, 4]
    assert not any(row.sampled_by_student for row in rows[0])
    assert all(row.sampled_by_student for row in rows[1])
    by_prompt = {tuple(oracle.encode(lesson.messages, "")[0]): lesson for lesson in lessons()}
    for row in rows[0]:
        lesson = by_prompt[row.prompt_ids]  # the prompt is the student's: without the memory
        wanted = oracle.sample(None, [lesson.told], greedy(12))[0][0].ids
        assert row.reply_ids == wanted
        assert row.teacher_ids_TK.shape == (len(row.reply_ids), 8)
        assert list(row.teacher_ids_TK[:, 0]) == list(wanted)


def test_distillation_brings_the_adapter_nearer_to_what_the_memory_does(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session

    stage = distillation(oracle, model_path, tmp_path)
    with session(base, RECIPE, [], [], {}, silent) as running:
        steps = stage.steps(running, 1, silent)  # type: ignore[attr-defined]
        passes = [[running.step(step, number, 2e-3)["divergence"] for step in steps] for number in range(4)]
    assert sum(passes[-1]) < 0.7 * sum(passes[0])


def test_a_run_that_is_cut_off_in_a_later_stage_ends_as_an_unbroken_one(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters import lora

    def stages(folder: Path) -> list[object]:
        return [distillation(oracle, model_path, folder), policy(oracle, model_path, folder)]

    def interrupt(made: Progress) -> None:
        if made.phase == "train" and made.figures["epoch"] == 4:
            raise KeyboardInterrupt

    train(base, oracle, stages(tmp_path / "a-policy"), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(base, oracle, stages(tmp_path / "b-policy"), tmp_path / "b", interrupt)
    assert len(list((tmp_path / "b").glob("epoch-*"))) == 3
    train(base, oracle, stages(tmp_path / "b-policy"), tmp_path / "b")
    last = [tmp_path / name / "epoch-004" / lora.WEIGHTS for name in "ab"]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert last[0].read_bytes() != (tmp_path / "a" / "epoch-003" / lora.WEIGHTS).read_bytes()


def test_what_is_worth_more_than_its_group_becomes_likelier(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session
    from familiar.adapters.trees import completion_logps

    stage = policy(oracle, model_path, tmp_path)
    with session(base, RECIPE, [], [], {}, silent) as running:
        steps = stage.steps(running, 1, silent)  # type: ignore[attr-defined]
        groups: list[Group] = [row for step in steps for _, part in step.parts for row in part]
        assert groups
        assert all(len(group.completions) == 4 for group in groups)

        def likelihood(group: Group) -> list[float]:
            return [sum(logps) for logps in completion_logps(running.trees, [group.tree], 1000)]

        before = [likelihood(group) for group in groups]
        for known, group in zip(before, groups, strict=True):
            for logps, behaviour in zip(known, group.behaviour_logps, strict=True):
                assert logps == pytest.approx(sum(behaviour), abs=0.1), "sampled by this very policy"
        for number, step in enumerate(steps):
            running.step(step, number, 1e-3)
        for known, now, group in zip(before, map(likelihood, groups), groups, strict=True):
            change = {reward: new - old for reward, new, old in zip(group.rewards, now, known, strict=True)}
            assert change[max(change)] > change[min(change)]


def test_a_served_reply_is_one_more_of_its_prompts_group(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session

    prompt, said = asked(ASKED[1]), "Go to bed at ten."
    ids = tuple(oracle.encode(prompt, said)[1])
    reply = Completion(ids, (-1.5,) * len(ids), said, "stop")
    stage = policy(oracle, model_path, tmp_path, served={1: [reply]})
    with session(base, RECIPE, [], [], {}, silent) as running:
        found = []
        for number in range(1, 5):
            found += [row for step in stage.steps(running, number, silent) for _, part in step.parts for row in part]  # type: ignore[attr-defined]
        sizes = {group.prompt_ids: len(group.completions) for group in found}
        assert sizes.pop(tuple(oracle.encode(prompt, "")[0])) == RECIPE.policy.group + 1
        assert set(sizes.values()) == {RECIPE.policy.group}
        group = next(group for group in found if len(group.completions) > RECIPE.policy.group)
        assert (group.completions[-1], group.behaviour_logps[-1]) == (ids, reply.logps)
        assert group.rewards[-1] == any_reward([(1, reply)])[0]
        before = stage.given()  # type: ignore[attr-defined]
        assert before != policy(oracle, model_path, tmp_path).given(), "a run is another with another reply"  # type: ignore[attr-defined]


def test_older_groups_are_replayed_with_what_they_were_sampled_under(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session

    stage = policy(oracle, model_path, tmp_path)
    with session(base, RECIPE, [], [], {}, silent) as running:
        first = [row for step in stage.steps(running, 1, silent) for _, part in step.parts for row in part]  # type: ignore[attr-defined]
        again = policy(oracle, model_path, tmp_path)  # as after a cut: from the folder
        second = [row for step in again.steps(running, 2, silent) for _, part in step.parts for row in part]  # type: ignore[attr-defined]
    assert first
    assert all(group in second for group in first)
    assert len(second) > len(first)


def test_rounds_take_all_prompts_in_turn_and_the_same_ones_after_a_cut(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session
    from familiar.adapters.stages import PolicyStage, Rewarded, Where

    prompts = [asked(text) for text in (*ASKED, "Why is the sky blue?")]
    graded: list[tuple[int, ...]] = []
    sampled: list[int] = []

    def reward(completions: Sequence[tuple[int, Completion]]) -> list[float]:
        graded.append(tuple(dict.fromkeys(number for number, _ in completions)))
        sampled.append(sum(len(completion.ids) for _, completion in completions))
        return any_reward(completions)

    def stage() -> PolicyStage:
        recipe = replace(RECIPE.policy, rounds=6, group=2, max_tokens=2)
        return PolicyStage(Rewarded(prompts, prompts[:1], reward), Where(oracle, model_path, tmp_path), recipe, seed=3)

    with session(base, RECIPE, [], [], {}, silent) as running:
        whole = stage()
        for number in range(1, 7):
            whole.steps(running, number, silent)
        drawn, tokens = graded[:], sum(sampled)
        graded.clear()
        again = stage()  # as in another process
        again.reward(running)
        graded.clear()
        for number in (4, 5, 6):
            again.steps(running, number, silent)
    assert [sorted(len(each) for each in drawn[at : at + 3]) for at in (0, 3)] == [[1, 2, 2]] * 2
    assert [sorted(sum(drawn[at : at + 3], ())) for at in (0, 3)] == [[0, 1, 2, 3, 4]] * 2, "each once in an epoch"
    assert drawn[:3] != drawn[3:], "in another order"
    assert graded == drawn[3:]
    assert again.sampled_tokens() == whole.sampled_tokens() == tokens, "of all rounds, and not of validation"


def test_held_out_prompts_are_graded_with_the_prompts_after_the_others(
    base: object, oracle: Oracle, model_path: Path, tmp_path: Path
) -> None:
    from familiar.adapters.session import session
    from familiar.adapters.stages import PolicyStage, Rewarded, Where

    graded: list[int] = []

    def reward(completions: Sequence[tuple[int, Completion]]) -> list[float]:
        graded.extend(number for number, _ in completions)
        return [0.25] * len(completions)

    prompts = [asked(text) for text in ASKED]
    where = Where(oracle, model_path, tmp_path)
    stage = PolicyStage(Rewarded(prompts[:3], prompts[3:], reward), where, RECIPE.policy, seed=0)
    with session(base, RECIPE, [], [], {}, silent) as running:
        assert stage.reward(running) == 0.25
        assert graded == [3]
        assert stage.steps(running, 1, silent) == [], "equal rewards teach nothing"
    none = PolicyStage(Rewarded(prompts, [], reward), where, RECIPE.policy, seed=0)
    assert none.reward(running) is None
