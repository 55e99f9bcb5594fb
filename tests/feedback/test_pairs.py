"""Which signals become training examples, and which of them ask the same."""

from dataclasses import replace

from familiar.feedback.pairs import MADE_GROUPS, Example, Rating, examples, groups, ratings
from familiar.memory.types import Exchange, Feedback, FeedbackKind, Message


def exchange(number: int, prompt: str = "Who wrote Emma?", completion: str = "Scott.") -> Exchange:
    messages = ({"role": "system", "content": f"Note {number}"}, {"role": "user", "content": prompt})
    return Exchange(f"chatcmpl-{number}", 1, float(number), "familiar", messages, completion)  # type: ignore[arg-type]


def signal(number: int, about: Exchange, text: str = "Austen.", kind: FeedbackKind = "correction") -> Feedback:
    return Feedback(f"fb-{number}", 1, float(number), kind, about.id, text)


def test_correction_and_preference_become_examples() -> None:
    one, two = exchange(1), exchange(2, "Who wrote Ivanhoe?", "Austen.")
    found = examples([(signal(1, one), one), (signal(2, two, "Scott.", "preference"), two)])
    assert found == [
        Example("fb-1", one.messages, "Austen.", "Scott.", found[0].group),
        Example("fb-2", two.messages, "Scott.", "Austen.", found[1].group),
    ]
    assert found[0].group != found[1].group


def test_last_word_on_an_exchange_counts() -> None:
    one, two = exchange(1), exchange(2)
    rows = [(signal(1, one, "first"), one), (signal(2, two), two), (signal(3, one, "second"), one)]
    assert [(example.id, example.chosen) for example in examples(rows)] == [("fb-3", "second"), ("fb-2", "Austen.")]


def test_what_does_not_train() -> None:
    one = exchange(1)
    rule = Feedback("fb-9", 1, 1.0, "rule", text="Be brief")
    rating = Feedback("fb-8", 1, 1.0, "rating", one.id, rating=1)
    untrusted = replace(signal(7, one, "from a web page"), trust="untrusted")
    assert examples([(rule, None), (rating, one), (untrusted, one), (signal(6, one), None)]) == []
    # An untrusted text does not replace the user's own word either.
    assert [found.id for found in examples([(signal(1, one), one), (untrusted, one)])] == ["fb-1"]


def test_a_prompt_is_known_by_signals_that_were_replaced_since() -> None:
    one, two, three = exchange(1), exchange(2, "Who wrote Ivanhoe?"), exchange(3, "Who wrote Hamlet?")
    rated = Feedback("fb-5", 1, 5.0, "rating", three.id, rating=-1)
    rows = [(signal(1, one), one), (signal(2, two), two), (signal(3, one, "Jane Austen."), one), (rated, three)]
    about_one, about_two = examples(rows)
    assert about_one.id == "fb-3"
    assert groups(rows, {"fb-1"}) == groups(rows, {"fb-3"}) == {about_one.group}
    assert groups(rows, {"fb-2", "fb-9"}) == {about_two.group}
    assert groups(rows, {"fb-5"}) == frozenset(), "a rating does not say which reply is wanted"
    assert groups([(signal(1, one), None)], {"fb-1"}) == frozenset()
    assert not MADE_GROUPS & {about_one.group, about_two.group}


def test_inferred_signals_train() -> None:
    one = exchange(1)
    assert len(examples([(replace(signal(1, one), trust="inferred"), one)])) == 1


def test_correction_of_an_empty_reply_has_nothing_rejected() -> None:
    one = exchange(1, completion=" \n")
    assert examples([(signal(1, one), one)])[0].rejected is None


def test_near_duplicates_share_a_group() -> None:
    prompts = ["Who wrote Emma?", "who wrote  EMMA", "Who wrote 'Emma'?!", "Who wrote Émma?"]
    abouts = [exchange(number, prompt) for number, prompt in enumerate(prompts)]
    assert (
        len({example.group for example in examples([(signal(n, about), about) for n, about in enumerate(abouts)])}) == 1
    )
    emoji = [exchange(8, "😀"), exchange(9, "😎")]
    assert (
        len({example.group for example in examples([(signal(n, about), about) for n, about in enumerate(emoji)])}) == 2
    )


def test_a_conversation_with_tools_does_not_train() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    asked = Message(role="user", content="Is it raining?")
    called = Message(role="assistant", content="", tool_calls=[call])
    told = Message(role="tool", content="Rain all day.", tool_call_id="call_1")
    for messages in ((asked, called), (asked, told)):
        about = Exchange("chatcmpl-t", 1, 1.0, "familiar", messages, "It rains.")
        assert examples([(signal(1, about), about)]) == []


def rated(number: int, about: Exchange, rating: int = 1) -> Feedback:
    return Feedback(f"fb-{number}", 1, float(number), "rating", about.id, rating=rating)


def test_the_last_rating_of_a_reply_counts() -> None:
    one, two = exchange(1), exchange(2)
    found = ratings([(rated(1, one), one), (rated(2, two), two), (rated(3, one, -1), one)])
    assert found == [
        Rating("fb-3", one.messages, "Scott.", desirable=False),
        Rating("fb-2", two.messages, "Scott.", desirable=True),
    ]


def test_ratings_that_do_not_train() -> None:
    one, empty = exchange(1), exchange(2, completion=" \n")
    told = Exchange("chatcmpl-t", 1, 1.0, "familiar", (Message(role="tool", content="Rain."),), "It rains.")
    untrusted = replace(rated(4, one), trust="untrusted")
    rows = [(rated(1, empty), empty), (rated(2, told), told), (rated(3, one), None), (untrusted, one)]
    assert ratings(rows) == []


def test_a_correction_says_more_than_a_rating_if_it_is_the_users() -> None:
    one = exchange(1)
    for kind in ("correction", "preference"):
        said = signal(2, one, kind=kind)
        assert ratings([(rated(1, one, -1), one), (said, one)]) == []
        assert [each.id for each in ratings([(rated(1, one, -1), one), (replace(said, trust="untrusted"), one)])]
