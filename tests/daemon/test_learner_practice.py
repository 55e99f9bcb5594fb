"""What a run practises of the user's manner, and what teaches it at every token."""

import numpy as np
import pytest

from familiar.adapters.protocols import greedy, silent
from familiar.daemon import learner_practice
from familiar.daemon.learnable import learnable
from familiar.daemon.oracle import Oracle
from familiar.feedback.habits import Begins, Ends, Manner
from familiar.feedback.pairs import Example
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
