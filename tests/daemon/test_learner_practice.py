"""What a run practises of the user's manner, and what teaches it at every token."""

from pathlib import Path

import numpy as np
import pytest

from familiar.adapters.protocols import greedy, silent
from familiar.adapters.recipe import Recipe
from familiar.daemon import learner_lessons, learner_practice, learner_rows
from familiar.daemon.learnable import learnable
from familiar.daemon.learner_lessons import Taught
from familiar.daemon.learner_plan import Plan
from familiar.daemon.oracle import Oracle
from familiar.feedback.dataset import Dataset
from familiar.feedback.habits import Begins, Ends, Manner, Says
from familiar.feedback.pairs import PRACTICE, Example, group_of
from familiar.memory.errors import NotEnoughSignals
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Message

ASKED = [(Message(role="user", content=f"How do I {what}?"),) for what in ("make tea", "boil an egg", "clean a window")]
GREETED = Manner((Begins("Ahoy! "),))
SIGNED = Manner((Ends(" Sail on!"),))


def test_replies_of_the_base_model_are_rewritten_as_the_user_does(oracle: Oracle) -> None:
    anchors = [(ASKED[2], f"Answer {number}.") for number in range(8)] + [(ASKED[2], "Ahoy! So it is.")]
    made = learner_practice.practice(GREETED, ASKED[:1], ASKED[1:], anchors, oracle, max_tokens=96, progress=silent)
    replies = [reply.text for (reply,) in oracle.sample(None, ASKED, greedy(96))]
    said = [(each.rejected, each.chosen) for each in made]
    some = [f"Answer {number}." for number in range(0, 8, learner_practice.EVERY_ANCHOR)]
    assert said == [(text, f"Ahoy! {text}") for text in (*replies, *some)]
    assert len({each.id for each in made}) == len(made)


def test_a_reply_of_which_nothing_is_left_is_not_practised(oracle: Oracle) -> None:
    gone = Manner((Says((("indeed", ""), (".", ""))),))
    anchors = [(ASKED[2], "Indeed."), (ASKED[0], "Not looked at."), (ASKED[1], "So it is indeed.")]
    made = learner_practice.practice(gone, (), (), anchors, oracle, max_tokens=96, progress=silent)
    assert [each.rejected for each in made] == ["So it is indeed."]


def test_what_the_user_adds_is_taught_and_else_what_the_model_would_say(oracle: Oracle) -> None:
    text = oracle.sample(None, ASKED[:1], greedy(96))[0][0].text
    example = Example("practice-0", ASKED[0], f"Ahoy! {text}", text, "practice")
    (row,) = learner_practice.as_rows([example], oracle, 8, silent)
    prompt, said = oracle.encode(ASKED[0], text)
    assert row.prompt_ids == tuple(prompt)
    assert row.reply_ids == tuple(oracle.encode(ASKED[0], f"Ahoy! {text}")[1])
    assert not row.sampled_by_student
    (top,) = oracle.top_logps(None, [(ASKED[0], said)], 8)
    added = len(row.reply_ids) - len(said)
    assert added > 0
    assert np.array_equal(row.teacher_ids_TK[added + 1 :], top.ids_TK[1:])
    assert np.array_equal(row.teacher_logps_TK[added + 1 :], top.logps_TK[1:])
    vocab = oracle.scorer.model.vocab
    first = {
        vocab.piece(token).strip(): logp for token, logp in zip(top.ids_TK[0].tolist(), top.logps_TK[0], strict=True)
    }
    behind = zip(row.teacher_ids_TK[added].tolist(), row.teacher_logps_TK[added], strict=True)
    assert {vocab.piece(token).strip(): logp for token, logp in behind} == first  # the same words, behind a space
    assert vocab.piece(row.reply_ids[added]).startswith(b" ")
    assert row.size == pytest.approx(added + 0.1 * len(said))
    chances = np.exp(row.teacher_logps_TK[:added])
    assert row.teacher_ids_TK[:added][chances > 0.5].tolist() == list(row.reply_ids[:added])
    assert chances.sum(-1) == pytest.approx(1.0)
    assert all(len(set(ids)) == 8 for ids in row.teacher_ids_TK.tolist())


def test_an_added_end_takes_the_place_of_the_models_own(oracle: Oracle) -> None:
    text = oracle.sample(None, ASKED[:1], greedy(96))[0][0].text
    example = Example("practice-0", ASKED[0], f"{text} Sail on!", text, "practice")
    (row,) = learner_practice.as_rows([example], oracle, 8, silent)
    said = oracle.encode(ASKED[0], text)[1]
    (top,) = oracle.top_logps(None, [(ASKED[0], said)], 8)
    at, stop = len(said) - 1, row.reply_ids[-1]
    begins = row.reply_ids[at]
    assert begins != stop == said[-1]
    chance = dict(zip(top.ids_TK[at].tolist(), np.exp(top.logps_TK[at]).tolist(), strict=True))
    taught = dict(zip(row.teacher_ids_TK[at].tolist(), np.exp(row.teacher_logps_TK[at]).tolist(), strict=True))
    assert taught[begins] == pytest.approx(chance[stop] + chance.get(begins, 0.0), rel=1e-5)
    assert taught.get(stop, 0.0) < 1e-6
    last = np.exp(row.teacher_logps_TK[-1])
    assert row.teacher_ids_TK[-1][last > 0.5].tolist() == [stop]


def test_the_users_own_prompts_are_practised_but_for_what_is_taught_or_judged_already(store: Store) -> None:
    user = store.default_user()
    for number in range(12):
        asked = (Message(role="user", content=f"What is {number % 10}?"),)
        store.add_exchange(Exchange(f"chatcmpl-{number}", user, float(number), "familiar", asked, f"It is {number}."))
    tool = (Message(role="tool", content="7 degrees", tool_call_id="1"), Message(role="user", content="And now?"))
    store.add_exchange(Exchange("chatcmpl-t", user, 20.0, "familiar", tool, "Cold."))
    for number in range(6):
        text = f"It is {number}. Sail on!"
        store.add_feedback(Feedback(f"fb-{number}", user, 30.0 + number, "correction", f"chatcmpl-{number}", text))
    found = learnable(store, user, 4)
    assert found.manner == SIGNED
    assert [messages[0]["content"] for messages in found.own] == [f"What is {number}?" for number in (9, 8, 7, 6)]


def test_what_judges_memories_is_not_practised_and_what_they_teach_does_not_judge(
    store: Store, oracle: Oracle, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_rows, "MIN_TAUGHT", 20)  # so that practice judges too
    user = store.default_user()
    for number in range(24):
        prompt = (Message(role="user", content=f"What should I know about topic {number}?"),)
        store.add_exchange(Exchange(f"chatcmpl-{number}", user, float(number), "familiar", prompt, "Fine."))
    store.put_memory(Memory("mem-1", user, 1.0, "rule", 'Always end with "Sail on!"'), 1.0)
    for number in range(4):
        store.add_feedback(
            Feedback(f"fb-{number}", user, 20.0 + number, "correction", f"chatcmpl-{number}", "Fine. Sail on!"), []
        )
    found = learnable(store, user, 4)
    recipe = Recipe.from_dict({"distillation": {"max_tokens": 96}})
    planned = Plan(found.dataset, (), found.taught, model_path, "b" * 64, recipe, SIGNED, found.own)
    rows = learner_rows.gather(planned, oracle, silent)
    judging = {group_of(lesson.messages) for lesson in rows.lessons.held_out}
    distilled = {group_of(lesson.messages) for lesson in rows.lessons.train}
    practised = {row.prompt_ids for row in rows.practised}
    assert judging & {group_of(messages) for messages in found.own}
    assert practised & {tuple(oracle.encode(messages, "")[0]) for messages in found.own}
    assert not practised & {tuple(oracle.encode(lesson.messages, "")[0]) for lesson in rows.lessons.held_out}
    drawn = [row for row in rows.judged if row.group == PRACTICE]
    assert drawn
    assert not (judging | distilled) & {group_of(row.messages) for row in drawn}
    assert not practised & {tuple(oracle.encode(row.messages, "")[0]) for row in drawn}
    untaught = {group_of(messages) for messages in rows.untaught}
    assert len(untaught) == learner_lessons.CANDIDATES // learner_rows.EVERY_UNTAUGHT
    assert not untaught & (judging | distilled)
    assert not practised & {tuple(oracle.encode(messages, "")[0]) for messages in rows.untaught}


def test_an_everyday_request_that_a_correction_judges_by_teaches_nothing(oracle: Oracle, model_path: Path) -> None:
    taught = Taught((Memory("mem-1", 1, 1.0, "rule", 'Always end with "Sail on!"'),), (), {})
    recipe = Recipe.from_dict({"distillation": {"max_tokens": 32}})
    corrected = learner_lessons.everyday(oracle, recipe.seed, silent)[::2]
    judging = [Example(f"fb-{n}", each, "Fine. Sail on!", "Fine.", group_of(each)) for n, each in enumerate(corrected)]
    train = [Example(f"fb-t{n}", each, "Fine. Sail on!", "Fine.", group_of(each)) for n, each in enumerate(ASKED)]
    planned = Plan(Dataset(tuple(train), tuple(judging), ""), (), taught, model_path, "b" * 64, recipe, SIGNED)
    rows = learner_rows.gather(planned, oracle, silent)
    lessons = [lesson.messages for lesson in (*rows.lessons.train, *rows.lessons.held_out)]
    assert lessons
    assert rows.practised
    assert rows.untaught
    assert not {group_of(each) for each in (*lessons, *rows.untaught)} & {each.group for each in judging}
    asked = {tuple(oracle.encode(each, "")[0]) for each in corrected}
    assert not asked & {row.prompt_ids for row in rows.practised}


def test_what_the_user_gave_up_is_neither_taught_nor_judged_by(store: Store) -> None:
    user = store.default_user()
    for number in range(16):
        asked = (Message(role="user", content=f"What is {number}?"),)
        store.add_exchange(Exchange(f"chatcmpl-{number}", user, float(number), "familiar", asked, f"It is {number}."))
        end = "Bye now!" if number < 8 else "Sail on!"
        feedback = Feedback(
            f"fb-{number}", user, 30.0 + number, "correction", f"chatcmpl-{number}", f"It is {number}. {end}"
        )
        rule = Memory(f"mem-{number}", user, 30.0 + number, "rule", f'Sign with "{end}"', feedback_id=feedback.id)
        store.add_feedback(feedback, (rule,) if number in (2, 12) else ())
    found = learnable(store, user, 4)
    assert found.manner == Manner((Ends(" Sail on!"),), (Ends(" Bye now!"),))
    rows = (*found.dataset.train, *found.dataset.held_out)
    assert len(rows) == 8
    assert all(each.chosen.endswith("Sail on!") for each in rows)
    assert [memory.text for memory in found.taught.always] == ['Sign with "Sail on!"']


def test_corrections_are_parted_among_those_that_fit(oracle: Oracle, model_path: Path) -> None:
    def example(number: int, words: int) -> Example:
        return Example(
            f"fb-{number}", (Message(role="user", content=f"{number}?"),), "word " * words, None, str(number)
        )

    none, taught = Recipe.from_dict({"distillation": {"rounds": 0}, "policy": {"rounds": 0}}), Taught((), (), {})

    def gathered(lengths: tuple[int, ...]) -> learner_rows.Rows:
        examples = [example(number, words) for number, words in enumerate(lengths)]
        given = Dataset(tuple(examples[2:]), tuple(examples[:2]), "fingerprint")
        return learner_rows.gather(Plan(given, (), taught, model_path, "b" * 64, none), oracle, silent)

    rows = gathered((1, 1, 1, 1, 2000))
    assert [row.id for row in rows.judged] == ["fb-0", "fb-1"]
    assert [row.id for row in rows.train] == ["fb-2", "fb-3"]
    rows = gathered((2000, 2000, 1, 1, 1, 1))
    assert len(rows.judged) == len(rows.held_out) == len(rows.train) == 2
    with pytest.raises(NotEnoughSignals, match=r"4 of 6 corrections are longer than .* Learning needs at least 3"):
        gathered((1, 2000, 2000, 2000, 2000, 1))
