"""What the users of ``personas.py`` ask, and what is right, from sets of the same form as the public ones."""

import json
from pathlib import Path
from typing import Any

import pytest

KINDS = ("syn", "ant", "hom", "defn", "sent")


@pytest.fixture
def sets(benchmarks: Any) -> Any:
    """The module that reads the sets."""
    return benchmarks("personas_data")


def situation(user: str, wanted: str, *, place: str = "pick-up", objects: tuple[str, ...]) -> dict[str, Any]:
    return {
        "user": user,
        "task": "Could you bring me a drink?",
        "scene": ", ".join(objects),
        "scene_objects": list(objects),
        "user_intent_object": wanted,
        "user_intent_location": place,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two users, of whom one changes their mind, and four word tasks of each kind."""
    scenes = tmp_path / "pahf_embodied"
    scenes.mkdir()
    for name, drink in (("original", "tea"), ("evolved", "milk")):
        for part in "AB":
            rows = [
                situation("Ada", drink, objects=("tea", "milk", "nuts")),
                situation("Ada", "nuts", place="shelf", objects=("nuts", "table", "shelf")),
                situation("Ada", "wine", objects=("tea", "milk")),
                situation("Bob", "tea", objects=("tea", "milk")),
            ]
            (scenes / f"{name}_scenarios_{part}.json").write_text(json.dumps(rows))
    meta = {
        "syn": {"word1": "ship{n}", "word2": "boat{n}"},
        "ant": {"word1": "big{n}", "word2": "small{n}"},
        "hom": {"word1": "flair{n}", "word2": "flare{n}"},
        "defn": {"word": "dock{n}", "definition": "A place for ships {n}."},
        "sent": {"word": "lake{n}", "sentence": "we swam in lake{n}"},
    }
    lines = [
        json.dumps(
            {
                "meta": {name: value.format(n=number) for name, value in meta[kind].items()},
                "type": kind,
                "template_id": f"{kind}{number % 3}",
            }
        )
        for number in range(4)
        for kind in KINDS
    ]
    (tmp_path / "memprompt_linguistic_300.jsonl").write_text("\n\n".join(lines))
    return tmp_path


def test_what_a_user_wants_is_one_of_what_is_there(sets: Any, folder: Path) -> None:
    ada, bob = sets.everyday(folder)
    assert (ada.user, bob.user) == ("Ada", "Bob")
    drink, place = ada.taught  # the wine is not there
    assert drink.prompt == "Could you bring me a drink? There is tea, milk, nuts."
    assert drink.answers == ("Here is the tea.", "Here is the milk.", "Here is the nuts.")
    assert drink.answers[drink.right] == "Here is the tea."
    assert place.answers == ("It is in the place table now.", "It is in the place shelf now.")
    assert place.answers[place.right] == "It is in the place shelf now."
    assert ada.later_held_out[0].answers[ada.later_held_out[0].right] == "Here is the milk."


def test_word_tasks_are_of_all_kinds_alike_and_of_other_words(sets: Any, folder: Path) -> None:
    taught, held_out = sets.word_tasks(folder, seed=0, taught=10, held_out=10)
    for part in (taught, held_out):
        assert sorted(each.right for each in part) == sorted([*range(5), *range(5)])
    assert not {each.prompt for each in taught} & {each.prompt for each in held_out}
    assert sets.word_tasks(folder, seed=0, taught=10, held_out=10) == (taught, held_out)
    assert sets.word_tasks(folder, seed=1, taught=10, held_out=10) != (taught, held_out)


def test_the_right_answer_is_of_the_kind_that_was_meant(sets: Any, folder: Path) -> None:
    taught, held_out = sets.word_tasks(folder, seed=0, taught=10, held_out=10)
    for each in (*taught, *held_out):
        assert any(each.prompt.endswith(text.partition("{word}")[2]) for text in sets.EXPRESSIONS[KINDS[each.right]])
        assert len(each.answers) == len(each.beginnings) == len(KINDS)
        assert all(answer.startswith(f"{start} ") for answer, start in zip(each.answers, each.beginnings, strict=True))
        assert all(answer.endswith(".") and not answer.endswith("..") for answer in each.answers)


def test_too_few_tasks_are_refused(sets: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"20 tasks.*but 30 are wanted"):
        sets.word_tasks(folder, seed=0, taught=10, held_out=20)
