"""What is recalled for a request, on a real store: by words alone, and with an embedder that stands for a real one."""

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from familiar.memory import database, recall
from familiar.memory.meaning import Vectors
from familiar.memory.recall import NOTHING, Recalled, Recaller, is_relevant, requests_in
from familiar.memory.store import Store
from familiar.memory.types import Memory, Message
from tests.memory.embedders import HashedWords

ME = 1


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


@pytest.fixture
def words(store: Store) -> Recaller:
    """Without an embedder."""
    return Recaller(store)


def add(store: Store, id: str, text: str, at: float | None = None, **fields: Any) -> Memory:
    """A rule that applies always, unless ``fields`` say something else; ids end in the time."""
    at = float(id.rsplit("-", 1)[-1]) if at is None else at
    return store.put_memory(Memory(id, ME, at, fields.pop("kind", "rule"), text, **fields), at)


def add_fact(store: Store, number: int, text: str, **fields: Any) -> Memory:
    return add(store, f"fact-{number}", text, kind="fact", scope="related", **fields)


def add_example(store: Store, number: int, prompt: str, text: str) -> Memory:
    return add(store, f"example-{number}", text, kind="example", prompt=prompt, scope="related")


def turns(*contents: str) -> list[Message]:
    """A conversation that ends with the user's turn."""
    messages: list[Message] = []
    for content in contents:
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "fine"}]
    return messages[:-1]


def ask(
    recaller: Recaller,
    *contents: str,
    budget_tokens: int = 1000,
    cost: Callable[[Memory], int] = lambda memory: 10,
    conversation_id: str | None = None,
    user: int = ME,
) -> Recalled:
    return recaller.recall(
        user,
        turns(*contents),
        conversation_id=conversation_id,
        budget_tokens=budget_tokens,
        count_tokens=cost,
    )


def ids(recalled: Recalled) -> list[str]:
    assert [used.memory_id for used in recalled.used] == [memory.id for memory in recalled.memories]
    return [memory.id for memory in recalled.memories]


def reasons(recalled: Recalled) -> dict[str, str]:
    return {used.memory_id: used.reason for used in recalled.used}


# ---- what applies always ----


def test_an_empty_store_recalls_nothing(words: Recaller) -> None:
    assert ask(words, "Hello") == NOTHING == Recalled((), (), 0)
    assert words.recall(ME, [], budget_tokens=100, count_tokens=lambda memory: 1) == NOTHING
    assert words.search(ME, "Hello") == []


def test_rules_always_apply_newest_first(store: Store, words: Recaller) -> None:
    for number, text in enumerate(("Sign as Zed", "Use metric units", "Be brief"), start=1):
        add(store, f"rule-{number}", text)
    for message in ("What is the weather?", "", "😀"):
        recalled = ask(words, message)
        assert ids(recalled) == ["rule-3", "rule-2", "rule-1"]
        assert set(reasons(recalled).values()) == {"always"}
    messages: list[Message] = [{"role": "system", "content": "x"}]
    assert words.recall(ME, messages, budget_tokens=30, count_tokens=lambda memory: 10).tokens == 30


def test_the_rule_that_the_message_is_about_comes_first(store: Store, words: Recaller) -> None:
    add(store, "rule-1", "Sign every letter as Zed")
    add(store, "rule-2", "Use metric units")
    add(store, "rule-3", "Be brief")
    recalled = ask(words, "Sign the letter, please")
    assert ids(recalled) == ["rule-1", "rule-3", "rule-2"]
    assert [used.score is None for used in recalled.used] == [False, True, True]


def test_stop_words_alone_do_not_make_a_rule_match(store: Store, words: Recaller) -> None:
    add(store, "rule-1", "You should do what is in the list")
    add(store, "rule-2", "Be brief")
    assert ids(ask(words, "What should you do in the morning?")) == ["rule-2", "rule-1"]


def test_a_rule_is_found_among_more_than_are_looked_at(
    store: Store, words: Recaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "MAX_STANDING", 3)
    add(store, "rule-1", "Sign every letter as Zed")
    here = store.start_conversation(ME, 0.0)
    add(store, "rule-2", "Call me Al", scope="conversation", conversation_id=here)
    for number, text in enumerate(("Use metric units", "Be brief", "Say please", "Write in English"), start=3):
        add(store, f"rule-{number}", text)
    assert ids(ask(words, "Sign the letter", conversation_id=here)) == ["rule-2", "rule-1", "rule-6", "rule-5"]


# ---- what applies to this request ----


def test_an_example_is_shown_only_where_it_matches(store: Store, words: Recaller) -> None:
    add_example(store, 1, "What is the boiling point of water?", "100 °C")
    assert ids(ask(words, "At what point does water boil?")) == ["example-1"]
    assert ids(ask(words, "What is the name of the king?")) == []  # only stop words are shared
    assert ids(ask(words, "Please water the roses, the tulips and the old pear tree")) == []  # one word of many


def test_a_fact_is_shown_only_where_it_matches(store: Store, words: Recaller) -> None:
    add_fact(store, 1, "My bicycle is red.")
    recalled = ask(words, "What colour is my bicycle? Is it red?")
    assert ids(recalled) == ["fact-1"]
    assert reasons(recalled) == {"fact-1": "words"}
    assert ids(ask(words, "What should I read about Rome?")) == []


def test_an_example_follows_the_last_user_message(store: Store, words: Recaller) -> None:
    add_example(store, 1, "Who wrote Hamlet?", "Shakespeare.")
    assert ids(ask(words, "Who wrote Hamlet?", "And what should I cook for my parents tonight?")) == []
    assert reasons(ask(words, "What should I cook tonight?", "who wrote hamlet")) == {"example-1": "same prompt"}


@pytest.mark.parametrize("message", ["How are you?", "Hello!", "I'm so fed up with you", "🙂", "你好吗"])
def test_the_same_message_recalls_its_correction_even_without_content_words(
    store: Store, words: Recaller, message: str
) -> None:
    add_example(store, 1, message, "Well met.")
    for messages in ([message.upper()], ["Tell me of the sea and the ships", f" {message}"]):
        recalled = ask(words, *messages)
        assert reasons(recalled) == {"example-1": "same prompt"}
        assert recalled.used[0].score == 1


def test_the_same_prompt_is_found_among_many_that_hold_its_words(store: Store, words: Recaller) -> None:
    add_example(store, 1, "How are you?", "Well met.")
    with store.connection.write() as transaction:
        transaction.execute_many(
            "INSERT INTO memories (id, user_id, created_at_s, kind, text, prompt, scope, pinned, source, state, uses,"
            " content_sha256) VALUES (?1, 1, ?2, 'example', 'x', ?3, 'related', 0, 'api', 'active', 0, ?1)",
            [(f"mem-{n}", n, f"How are you, number {n}? And how are the others with you?") for n in range(2, 6000)],
        )
    recalled = ask(words, "how are you")
    assert ids(recalled)[0] == "example-1"
    assert reasons(recalled)["example-1"] == "same prompt"
    assert len(recalled.memories) <= recall.MAX_EXAMPLES


def test_a_long_message_is_the_same_prompt_to_its_end(store: Store, words: Recaller) -> None:
    text = "Summarise this report on trade. " + "The harbour was busy all year. " * 100
    add_example(store, 1, text + "Answer in Dutch.", "Goed.")
    assert reasons(ask(words, text + "answer in dutch")) == {"example-1": "same prompt"}
    assert "same prompt" not in reasons(ask(words, text + "Answer in French.")).values()


def test_a_fact_that_says_it_all_is_not_the_same_prompt(store: Store, words: Recaller) -> None:
    add_fact(store, 1, "My bicycle is red.")
    add_example(store, 2, "Red bicycle or blue bicycle?", "Blue.")
    assert set(reasons(ask(words, "red bicycle")).values()) == {"words"}


def test_at_most_two_examples_after_the_rest(store: Store, words: Recaller) -> None:
    for number in range(1, 9):
        add_example(store, number, f"Name a red flower, try {number}", f"Rose {number}")
    add_fact(store, 10, "A red flower grows in my garden.")
    add(store, "rule-9", "Be brief")
    recalled = ask(words, "Name a red flower")
    assert [memory.kind for memory in recalled.memories] == ["fact", "rule", "example", "example"]


def test_the_best_example_first(store: Store, words: Recaller) -> None:
    add_example(store, 1, "Name a red flower", "Rose")
    add_example(store, 2, "Name a red car", "Ferrari")
    for number in range(3, 12):
        add_example(store, number, f"Unrelated matter {number}", "Yes")
    assert ids(ask(words, "Name one red flower"))[0] == "example-1"


def test_no_more_than_so_many_related_ones_the_best_of_them(store: Store, words: Recaller) -> None:
    for number in range(1, 21):
        add_fact(store, number, f"The marmot {number} likes {'red ' if number == 7 else ''}clover.")
    recalled = ask(words, "Which marmot likes red clover?")
    assert len(recalled.memories) == recall.MAX_RELATED
    assert ids(recalled)[0] == "fact-7"


def test_pinned_then_this_conversation_then_related_then_always(store: Store, words: Recaller) -> None:
    here, elsewhere = store.start_conversation(ME, 0.0), store.start_conversation(ME, 0.0)
    add(store, "rule-1", "Use metric units", pinned=True)
    add_fact(store, 2, "My bicycle is red.")
    add(store, "rule-3", "Call me Al", scope="conversation", conversation_id=here)
    add(store, "rule-4", "Call me Bo", scope="conversation", conversation_id=elsewhere)
    add(store, "rule-5", "Be brief")
    add_fact(store, 6, "My sister is a nurse.", pinned=True)
    recalled = ask(words, "Is my bicycle red?", conversation_id=here)
    assert list(reasons(recalled).items()) == [
        ("fact-6", "pinned"),
        ("rule-1", "pinned"),
        ("rule-3", "conversation"),
        ("fact-2", "words"),
        ("rule-5", "always"),
    ]
    assert [memory_id for memory_id in ids(ask(words, "Is my bicycle red?")) if memory_id in ("rule-3", "rule-4")] == []
    assert ids(ask(words, "Hi", conversation_id=here, budget_tokens=30)) == ["fact-6", "rule-1", "rule-3"]


def test_a_pinned_memory_that_never_fits_is_named(store: Store, words: Recaller) -> None:
    add(store, "rule-1", "Use metric units. " * 40, pinned=True)
    add(store, "rule-2", "Be brief. " * 40)
    add(store, "rule-3", "Call me Al", pinned=True)
    recalled = ask(words, "Hi", budget_tokens=30, cost=lambda memory: len(memory.text))
    assert ids(recalled) == ["rule-3"]
    assert [memory.id for memory in recalled.too_long] == ["rule-1"], "the other one was never promised"
    assert [memory.id for memory in recalled.untold().too_long] == ["rule-1"]


def test_a_pinned_memory_that_others_leave_no_room_for_is_not_too_long(words: Recaller, store: Store) -> None:
    for number in (1, 2):
        add(store, f"rule-{number}", f"Rule {number}." + " Really." * 2, pinned=True)
    recalled = ask(words, "Hi", budget_tokens=30, cost=lambda memory: len(memory.text))
    assert len(recalled.memories) == 1
    assert recalled.too_long == ()


def test_what_is_pinned_takes_no_place_of_what_is_related(store: Store, words: Recaller) -> None:
    for number in range(1, 9):
        add_fact(store, number, f"The marmot {number} likes clover.", pinned=number > 4)
    assert len(ids(ask(words, "Which marmot likes clover?"))) == 8


def test_what_was_said_next_to_a_match_is_ranked_with_it(store: Store, words: Recaller) -> None:
    here = store.start_conversation(ME, 0.0)
    add_fact(store, 1, "We talked of the marmot.", conversation_id=here)
    add_fact(store, 2, "It sleeps until March.", conversation_id=here)
    add_fact(store, 3, "Nothing to do with it.", conversation_id=store.start_conversation(ME, 0.0))
    found = words.search(ME, "When does the marmot wake?")
    assert [each.memory.id for each in found] == ["fact-1"]
    assert [each.memory.id for each in words.rank(ME, "the marmot", None, 9)] == ["fact-1", "fact-2"]


# ---- follow-up questions ----


def test_a_follow_up_is_understood_by_the_turn_before(store: Store, words: Recaller) -> None:
    add_fact(store, 1, "My lasagne recipe takes one hour.")
    assert ids(ask(words, "How long does my lasagne recipe take?", "and for two?")) == ["fact-1"]
    assert ids(ask(words, "and for two?")) == []
    assert ids(ask(words, "lasagne recipe?", "What is the tallest mountain in Wales?")) == []


def test_a_short_question_stands_for_itself_too(store: Store, words: Recaller) -> None:
    add_fact(store, 1, "My bicycle is red.")
    assert ids(ask(words, "Tell me all about the trade of Rome with Egypt", "Is my bicycle red?")) == ["fact-1"]


def test_what_is_asked_survives_a_long_turn_before() -> None:
    last, both = requests_in(turns("word " * 5000, "and in winter?"))
    assert last == "and in winter?"
    assert both.endswith("\nand in winter?")
    assert len(both) < 2000
    assert requests_in(turns("Hello there, my friend", "Which mountain in Wales is the tallest?")) == [
        "Which mountain in Wales is the tallest?"
    ]
    assert requests_in([{"role": "assistant", "content": "x"}]) == requests_in(turns("Hello", " ")) == []


# ---- never ----


def test_nothing_twice(store: Store, words: Recaller) -> None:
    add(store, "rule-1", "Use metric units")
    add(store, "rule-2", "use  metric units.")
    add(store, "rule-3", "Use C")
    add(store, "rule-4", "Use C++", pinned=True)
    assert ids(ask(words, "What are metric units?")) == ["rule-4", "rule-1", "rule-3"]


def test_a_later_correction_of_the_same_prompt_supersedes(store: Store, words: Recaller) -> None:
    add_example(store, 1, "Who wrote Hamlet?", "Marlowe.")
    add_example(store, 2, "who wrote Hamlet", "Shakespeare.")
    assert [memory.text for memory in ask(words, "Who wrote Hamlet?").memories] == ["Shakespeare."]
    add_example(store, 3, "Who wrote Hamlet?", "Marlowe.")  # the first one again: it is the latest word
    assert [memory.text for memory in ask(words, "Who wrote Hamlet?").memories] == ["Marlowe."]


def test_what_is_superseded_or_evicted_or_forgotten_is_not_recalled(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db", max_memories=3) as store:
        for recaller in (Recaller(store), Recaller(store, HashedWords())):
            offset = 10 * len(store.memories(ME, states=("active", "superseded", "evicted")))
            add_fact(store, offset + 1, "I live in Oslo.")
            add_fact(store, offset + 2, "My bicycle is red.")
            assert ids(ask(recaller, "Do I live in Oslo?")) == [store.memories(ME)[0].id]
            add_fact(store, offset + 3, "I live in Bergen.")
            assert "Oslo" not in str(ask(recaller, "Do I live in Oslo?"))
            for number in range(4, 7):
                add_fact(store, offset + number, f"I own the boat w{offset + number}.", pinned=number == 6)
            assert {memory.state for memory in store.memories(ME, states=("evicted",))} == {"evicted"}
            assert "bicycle" not in str(ask(recaller, "Is my bicycle red?"))
            store.forget(ME, [memory.id for memory in store.memories(ME)])
            assert ask(recaller, f"Do I own the boat w{offset + 6}?") == NOTHING


def test_another_users_memories_are_not_recalled(store: Store) -> None:
    other = store.users.add("you", "fam-key", 0.0).id
    add(store, "rule-1", "Be brief")
    add_example(store, 2, "be brief", "Yes.")
    for recaller in (Recaller(store), Recaller(store, HashedWords())):
        assert len(ids(ask(recaller, "be brief"))) == 2
        assert ask(recaller, "be brief", user=other) == NOTHING
        assert recaller.search(other, "be brief") == []


# ---- the budget ----


def test_a_memory_that_is_too_long_is_skipped_and_a_later_one_still_fits(store: Store, words: Recaller) -> None:
    add(store, "rule-1", "short")
    add(store, "rule-2", "very " * 50 + "long")
    add(store, "rule-3", "brief")
    recalled = ask(words, "Hello", budget_tokens=10, cost=lambda memory: len(memory.text))
    assert [memory.text for memory in recalled.memories] == ["brief", "short"]
    assert recalled.tokens == 10  # exactly full


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(budget_tokens=st.integers(0, 120), seed=st.integers(0, 99))
def test_the_budget_is_kept_and_left_only_where_nothing_fits(store: Store, budget_tokens: int, seed: int) -> None:
    if not store.memories(ME):
        for number in range(8):
            add(store, f"rule-{number}", f"Rule {number} on flowers")
            add_example(store, 100 + number, f"Name a flower, {number}", f"Rose {number}")

    def cost(memory: Memory) -> int:
        return 1 + (zlib.crc32(f"{memory.id} {seed}".encode()) % 20)

    recalled = ask(Recaller(store), "Name a flower", budget_tokens=budget_tokens, cost=cost)
    assert recalled.tokens == sum(map(cost, recalled.memories)) <= budget_tokens
    assert len(set(ids(recalled))) == len(recalled.memories)
    left_out = [rule for rule in store.memories(ME, "rule") if rule not in recalled.memories]
    # A rule that was left out had no room where it stood, so it has none now.
    assert all(recalled.tokens + cost(rule) > budget_tokens for rule in left_out)


# ---- any request ----

ODD = [
    "",
    "   \n\t",
    "what should I do about it",
    "😀🎉👍🏽",
    "我喜欢喝绿茶，不要咖啡",
    "العربية مرحبا",
    "a" * 100_000,
    "marmot " * 15_000,
    " " * 5000 + "marmot",
    'marmot" OR 1 NEAR/2 (x AND *) NOT ^y :{z}',
    "AND OR NOT NEAR",
    "\x00\x01 marmot \ufeff",
    "-- ; DROP TABLE memories",
]


@pytest.mark.parametrize("message", ODD)
@pytest.mark.parametrize("embed", [None, HashedWords()], ids=["words", "meaning"])
def test_no_request_is_an_error(store: Store, message: str, embed: HashedWords | None) -> None:
    add_fact(store, 1, "The marmot likes clover.")
    add(store, "rule-2", "Be brief")
    recaller = Recaller(store, embed)
    for messages in ([message], ["Tell me of the sea", message]):
        recalled = ask(recaller, *messages)
        assert "rule-2" in ids(recalled)
        assert all(used.score is None or 0 <= used.score <= 1 for used in recalled.used)
        assert ("fact-1" in ids(recalled)) >= message.startswith("marmot marmot")


_WORD = st.sampled_from("marmot clover tea the my is red bicycle sister nurse Oslo in how are you 😀 茶".split())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_WORD, max_size=8), st.booleans())
def test_scores_are_from_0_to_1_and_say_why(store: Store, said: list[str], embedded: bool) -> None:
    if not store.memories(ME):
        here = store.start_conversation(ME, 0.0)
        for number, text in enumerate(
            ("The marmot likes clover.", "My bicycle is red.", "Oslo is far.", "So is Rome.")
        ):
            add_fact(store, number, text, conversation_id=here)
        add(store, "rule-10", "Be brief about the bicycle")
        add_example(store, 11, "How are you?", "Well met.")
    recaller = Recaller(store, _EMBED if embedded else None)
    for used in ask(recaller, " ".join(said)).used:
        if used.memory_id == "rule-10":
            assert used.reason == "always"
        elif used.reason == "same prompt":
            assert (used.memory_id, used.score) == ("example-11", 1)
        else:
            assert used.reason in (("words", "meaning", "words and meaning") if embedded else ("words",))
            assert used.score is not None
        assert used.score is None or 0 <= used.score <= 1


_EMBED = HashedWords()


# ---- by meaning ----

FOOD = "peanuts snacks"


@pytest.fixture
def meant(store: Store) -> Recaller:
    """With an embedder to which peanuts and snacks are one thing."""
    return Recaller(store, HashedWords(alike=[FOOD]))


def test_what_shares_no_word_is_found_by_what_it_means(store: Store, words: Recaller, meant: Recaller) -> None:
    add_fact(store, 1, "Allergic to peanuts.")
    add_fact(store, 2, "My bicycle is red.")
    recalled = ask(meant, "Which snacks?")
    assert reasons(recalled) == {"fact-1": "meaning"}
    assert ids(ask(words, "Which snacks?")) == []
    assert ids(ask(meant, "Which harbour?")) == []
    both = ask(meant, "Are peanuts snacks?")
    assert reasons(both) == {"fact-1": "words and meaning"}


def test_what_was_said_a_moment_ago_is_found_though_nothing_has_been_prepared(store: Store, meant: Recaller) -> None:
    for number in range(recall._AT_ONCE):
        add_fact(store, number, f"Entry w{number}.")
        assert ask(meant, "Which snacks?") == NOTHING
    add_fact(store, 99, "Allergic to peanuts.")
    assert ids(ask(meant, "Which snacks?")) == ["fact-99"]
    assert meant.prepare(ME) == 0
    store.edit_memory(ME, "fact-99", 100.0, text="Fond of harbours.")
    assert ask(meant, "Which snacks?") == NOTHING


def test_memories_without_a_vector_are_found_by_words_until_they_have_one(store: Store, meant: Recaller) -> None:
    add_fact(store, 0, "The marmot likes clover.")
    for number in range(1, 40):
        add_fact(store, number, f"Entry w{number}.")
    assert ids(ask(meant, "Which clover does the marmot like?")) == ["fact-0"]  # gives vectors to the newest only
    assert meant.rank(ME, "clover", None, 1)[0].meaning is None
    assert meant.prepare(ME) == 40 - recall._AT_ONCE
    assert meant.search(ME, "Which clover does the marmot like?")[0].meaning is not None


def test_a_store_that_cannot_be_written_can_be_searched(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    with Store.open(data_dir / "familiar.db") as store, closing(sqlite3.connect(store.connection.path)) as other:
        recaller = Recaller(store, _EMBED)
        add_fact(store, 1, "The marmot likes clover.")
        other.execute("BEGIN IMMEDIATE")
        assert ids(ask(recaller, "Which clover does the marmot like?")) == ["fact-1"]
        assert recaller.search(ME, "clover")[0].meaning is None
        other.rollback()
        assert ids(ask(recaller, "Which clover does the marmot like?")) == ["fact-1"]
        assert recaller.search(ME, "clover")[0].meaning is not None


def test_a_search_that_needs_no_vectors_asks_for_none(store: Store) -> None:
    embed = HashedWords()
    recaller = Recaller(store, embed)
    background = len(embed.calls)
    assert ask(recaller, "Which snacks?") == NOTHING
    assert embed.calls[background:] == []  # nothing to compare with
    add_fact(store, 1, "Allergic to peanuts.")
    ask(recaller, "Which snacks?")
    ask(recaller, "Which harbour?")
    assert embed.calls[background:] == [["Allergic to peanuts."], ["Which snacks?"], ["Which harbour?"]]


def test_another_embedder_takes_over(store: Store, words: Recaller) -> None:
    add_fact(store, 1, "Allergic to peanuts.")
    assert not words.by_meaning
    assert words.prepare(ME) == 0
    assert ids(ask(words, "Which snacks?")) == []
    words.use(HashedWords(alike=[FOOD]))
    assert words.by_meaning
    assert ids(ask(words, "Which snacks?")) == ["fact-1"]
    words.use(HashedWords(alike=["harbour peanuts"]))
    assert ids(ask(words, "Which snacks?")) == []
    assert ids(ask(words, "Which harbour?")) == ["fact-1"]


def test_an_embedder_that_fails_fails_the_search_and_no_other(store: Store) -> None:
    class Failing(HashedWords):
        broken = False

        def __call__(self, texts: Sequence[str]) -> Vectors:
            if self.broken:
                raise RuntimeError("broken")
            return super().__call__(texts)

    embed = Failing()
    recaller = Recaller(store, embed)
    add_fact(store, 1, "Allergic to peanuts.")
    embed.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        ask(recaller, "Any peanuts?")
    embed.broken = False
    assert ids(ask(recaller, "Any peanuts?")) == ["fact-1"]


def test_a_search_gives_the_best_first_and_as_many_as_asked_for(store: Store, meant: Recaller) -> None:
    for number in range(30):
        add_fact(store, number, f"Entry w{number} of marmot{number % 3}.")
    found = meant.search(ME, "entry marmot1 w4")
    assert found[0].memory.id == "fact-4"
    assert is_relevant(found[0])
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert len(found) <= 20
    assert [each.memory.id for each in meant.search(ME, "entry marmot1 w4", limit=3)] == [
        each.memory.id for each in found[:3]
    ]


def test_more_users_than_are_kept_in_memory_find_their_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_USERS", 2)
    recaller = Recaller(store, _EMBED)
    users = [store.users.add(f"user{number}", f"fam-{number}", 0.0).id for number in range(5)]
    for user in users:
        text = f"The marmot of {user} likes clover."
        store.put_memory(Memory(f"mem-{user}", user, 1.0, "fact", text, scope="related"), 1.0)
    for user in users * 2:
        assert ids(ask(recaller, "Which clover does the marmot like?", user=user)) == [f"mem-{user}"]
