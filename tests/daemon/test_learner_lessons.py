"""Which prompts memories are taught on, with what beside them, and which graders judge."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from familiar.adapters.probes import load_probes
from familiar.adapters.protocols import Completion, greedy, silent
from familiar.daemon import learner_lessons
from familiar.daemon.oracle import Oracle
from familiar.feedback.grader_parse import parse
from familiar.feedback.pairs import group_of
from familiar.memory.meaning import everyday_requests
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Message, StoredGrader, Used

SHORT = {
    "type": "string_check",
    "name": "sail",
    "operation": "like",
    "input": "{{sample.output_text}}",
    "reference": "Sail on!",
}

EVERYDAY_ALL = [(Message(role="user", content=text),) for text in everyday_requests()]
EVERYDAY = EVERYDAY_ALL[:100]


def keep(store: Store, id: str, text: str, **more: object) -> Memory:
    given = {"kind": "rule", "scope": "always", **more}
    return store.put_memory(Memory(id, store.default_user(), 1.0, text=text, **given), 1.0)  # type: ignore[arg-type]


def answer(store: Store, number: int, text: str, *memories: Memory, tool: bool = False) -> None:
    """Log an exchange that these memories were shown in."""
    messages: tuple[Message, ...] = (Message(role="user", content=text),)
    if tool:
        messages = (Message(role="tool", content="7 degrees", tool_call_id="1"), *messages)
    used = tuple(Used(memory.id, "meaning", 0.5) for memory in memories)
    store.add_exchange(
        Exchange(f"chatcmpl-{number}", store.default_user(), float(number), "familiar", messages, "Yes.", used=used)
    )


def test_memories_are_taught_on_the_prompts_that_they_were_shown_to(store: Store) -> None:
    sister = keep(store, "mem-1", "My sister is called Ada.", kind="fact", scope="related")
    gone = keep(store, "mem-2", "My dog is called Rex.", kind="fact", scope="related")
    shown = keep(store, "mem-3", "Nice.", kind="example", prompt="How was it?", scope="related")
    answer(store, 1, "Who is Ada?", sister, shown)
    answer(store, 2, "Who is Rex?", gone)
    answer(store, 3, "Who is Ada?", sister)
    answer(store, 4, "What is the weather where Ada lives?", sister, tool=True)
    store.forget(store.default_user(), [gone.id])
    taught = learner_lessons.taught(store, store.default_user())
    assert taught.always == ()
    told = [(messages[-1]["content"], [memory.id for memory in shown]) for messages, shown in taught.own]
    assert told == [("Who is Ada?", [sister.id])]
    assert taught.count == 1


def test_what_the_model_does_not_follow_though_told_is_left_to_corrections(store: Store) -> None:
    user = store.default_user()
    followed = keep(store, "mem-1", "Keep answers short.")
    ignored = keep(store, "mem-2", "Sign with my tag #filed.")
    for number in range(8):
        answer(store, number, f"What is {number}?", *((followed, ignored) if number % 2 else (followed,)))
    for number in (1, 3):  # two of eight, and two of four
        store.add_feedback(Feedback(f"fb-{number}", user, 9.0, "correction", f"chatcmpl-{number}", "No. #filed"))
    taught = learner_lessons.taught(store, user)
    assert [memory.id for memory in taught.always] == [followed.id]
    assert sorted(messages[-1]["content"] for messages, _ in taught.own) == [
        f"What is {number}?" for number in (0, 2, 4, 5, 6, 7)
    ]


def test_a_store_without_rules_and_facts_teaches_nothing(store: Store) -> None:
    keep(store, "mem-3", "Nice.", kind="example", prompt="How was it?", scope="related")
    said_once = {"scope": "conversation", "conversation_id": store.start_conversation(store.default_user(), 1.0)}
    answer(store, 1, "What is tea?", keep(store, "mem-4", "Answer in French.", **said_once))
    assert not learner_lessons.taught(store, store.default_user())


def test_lessons_are_told_the_memory_in_the_prompt_and_parted_for_good(store: Store, oracle: Oracle) -> None:
    rule = keep(store, "mem-1", 'Always end with "Sail on!"')
    store.add_grader(StoredGrader("grader-1", store.default_user(), 1.0, "sail", SHORT, rule.id))
    taught = learner_lessons.taught(store, store.default_user())
    assert taught.always == (rule,)
    made = learner_lessons.make(taught, EVERYDAY, oracle, seed=0, most_tokens=500)
    assert len(made.train) + len(made.held_out) == learner_lessons.ENOUGH
    assert 2 <= len(made.held_out) <= learner_lessons.ENOUGH // 2
    for lesson in (*made.train, *made.held_out):
        assert [message["role"] for message in lesson.messages] == ["user"]
        assert lesson.told[0]["content"] == 'Remember about this user:\n- Always end with "Sail on!"'
        assert lesson.told[1:] == lesson.messages
    prompts = {str(lesson.messages) for lesson in made.train}
    assert not prompts & {str(lesson.messages) for lesson in made.held_out}
    assert [each.messages for each in made.graded] == [lesson.messages for lesson in made.train]
    again = learner_lessons.make(taught, EVERYDAY, oracle, seed=0, most_tokens=500)
    assert again.train == made.train
    louder = [(Message(role="user", content=prompt[0]["content"].upper() + " !"),) for prompt in EVERYDAY]
    other = learner_lessons.make(taught, louder, oracle, seed=0, most_tokens=500)
    asked = [[group_of(lesson.messages) for lesson in part.held_out] for part in (made, other)]
    assert asked[0] == asked[1], "what asks the same is on the same side"


def test_everyday_requests_that_the_model_has_something_to_say_to_come_first(oracle: Oracle) -> None:
    prompts = learner_lessons.everyday(oracle, 0, silent)
    assert len(prompts) == len(set(map(repr, prompts))) == learner_lessons.CANDIDATES
    probed = {group_of(probe.messages) for probe in load_probes().neutral}
    assert probed & {group_of(prompt) for prompt in EVERYDAY_ALL}
    assert not probed & {group_of(prompt) for prompt in prompts}
    assert prompts == learner_lessons.everyday(oracle, 0, silent) != learner_lessons.everyday(oracle, 1, silent)
    replies = oracle.sample(None, prompts, greedy(learner_lessons.TRIAL_TOKENS))
    tops = oracle.top_logps(None, [(prompt, reply.ids) for prompt, (reply,) in zip(prompts, replies, strict=True)], 1)
    likelihood = [float(top.picked_T.mean()) for top in tops]
    assert likelihood[0] > likelihood[-1]
    assert likelihood == pytest.approx(sorted(likelihood, reverse=True), abs=0.01)


def test_a_prompt_that_is_too_long_is_left_out(store: Store, oracle: Oracle) -> None:
    fact = keep(store, "mem-1", "My sister is called Ada.", kind="fact", scope="related")
    answer(store, 1, "Who is Ada?", fact)
    answer(store, 2, "Who is Ada? " * 50, fact)
    answer(store, 3, "What is my sister's name?", fact)
    taught = learner_lessons.taught(store, store.default_user())
    assert len(taught.own) == 3
    made = learner_lessons.make(taught, EVERYDAY, oracle, seed=0, most_tokens=100)
    assert sorted(lesson.messages[0]["content"] for lesson in (*made.train, *made.held_out)) == [
        "What is my sister's name?",
        "Who is Ada?",
    ]
    assert len(made.held_out) == 1


def test_rewards_are_the_mean_of_the_graders_that_apply(store: Store, oracle: Oracle) -> None:
    rule = keep(store, "mem-1", 'Always end with "Sail on!"', scope="related")
    other = keep(store, "mem-2", "Never say maybe.", scope="related")
    source = "def grade(sample, item):\n    return 0.5\n"
    half = {"type": "python", "name": "half", "source": source}
    store.add_grader(StoredGrader("grader-1", store.default_user(), 1.0, "sail", SHORT, rule.id))
    store.add_grader(StoredGrader("grader-2", store.default_user(), 2.0, "half", half, other.id))
    answer(store, 1, "How do I make tea?", rule, other)
    answer(store, 2, "How do I boil an egg?", rule)
    answer(store, 3, "How do I sleep?", other)
    taught = learner_lessons.taught(store, store.default_user())
    made = learner_lessons.make(taught, EVERYDAY, oracle, seed=0, most_tokens=500)
    prompts = [*made.graded, *made.graded_held_out]
    number = {prompt.messages[0]["content"]: i for i, prompt in enumerate(prompts)}
    rewards = learner_lessons.rewards(prompts, oracle.answer)

    def reply(asked: str, text: str) -> tuple[int, Completion]:
        return number[asked], Completion((1,), (0.0,), text, "stop")

    assert rewards(
        [
            reply("How do I make tea?", "Boil water. Sail on!"),
            reply("How do I make tea?", "Boil water."),
            reply("How do I boil an egg?", "Sail on!"),
            reply("How do I sleep?", "Sail on!"),
        ]
    ) == [0.75, 0.25, 1.0, 0.5]


def graded(*definitions: dict[str, Any]) -> list[learner_lessons.Graded]:
    applying = tuple(map(parse, definitions))
    return [learner_lessons.Graded(messages, applying) for messages in EVERYDAY[:3]]


def replies(*said: tuple[int, str]) -> list[tuple[int, Completion]]:
    return [(number, Completion((1,), (0.0,), text, "stop")) for number, text in said]


def python(returned: str) -> dict[str, Any]:
    source = f"def grade(sample, item):\n    words = sample['output_text'].split()\n    return {returned}\n"
    return {"type": "python", "name": "count", "source": source}


def test_rewards_beyond_0_to_1_only_compare_the_replies_to_one_prompt(oracle: Oracle) -> None:
    said = replies((0, "a b c d e f"), (0, "a b"), (0, "a b c d"), (1, "a b c"), (1, "a b c"), (2, "a b"))
    longest = learner_lessons.rewards(graded(python("len(words)")), oracle.answer)
    assert longest(said) == [1.0, 0.0, 0.5, 1.0, 1.0, 1.0], "all but the first three have nothing to be compared with"
    shortest = learner_lessons.rewards(graded(python("-len(words) if len(words) < 6 else 1 / 0")), oracle.answer)
    assert shortest(said)[:3] == [0.0, 1.0, 0.0], "a failure is no better than the worst"
    both = learner_lessons.rewards(graded(python("len(words)"), {**SHORT, "reference": "b c"}), oracle.answer)
    assert both(said)[:3] == [1.0, 0.0, 0.75], "the one does not drown the other"
    within = learner_lessons.rewards(graded(python("len(words) / 10")), oracle.answer)
    assert within(said)[:3] == [0.6, 0.2, 0.4]


def test_a_models_score_is_taken_by_its_range() -> None:
    stars = {"type": "score_model", "name": "stars", "model": "local", "range": [1, 5]}
    stars["input"] = [{"role": "user", "content": "{{sample.output_text}}"}]

    def answer(messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str:
        return messages[0]["content"]

    rewards = learner_lessons.rewards(graded(stars), answer)
    assert rewards(replies((0, "5"), (0, "4"), (0, "1"), (0, "none"), (1, "3"))) == [1.0, 0.75, 0.0, 0.0, 0.5]


def test_a_grader_that_fails_is_told_of_once(oracle: Oracle, caplog: pytest.LogCaptureFixture) -> None:
    rewards = learner_lessons.rewards(graded(python("1 / 0"), {**SHORT, "reference": "b"}), oracle.answer)
    assert [rewards(replies((0, "a"), (1, "b"))) for _ in range(2)] == [[0.0, 0.5]] * 2
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("familiar", "WARNING")
    said = record.getMessage()
    assert said.startswith("The grader 'count' failed on 2 of 2 replies, which got 0: ")
    assert "ZeroDivisionError" in said
    assert "\n" not in said
