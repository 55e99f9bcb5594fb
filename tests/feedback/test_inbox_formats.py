"""A dropped file becomes rows, or says at which line what is wrong; one that may be half-written is waited for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.feedback.inbox_formats import Unfinished, decode, parse
from familiar.feedback.inbox_row import Row
from familiar.memory.errors import BadFile

QUESTION = [{"role": "user", "content": "And Hamlet?"}]


def rows(*items: object) -> list[Row]:
    parsed = parse("".join(json.dumps(item) + "\n" for item in items))
    assert not parsed.problems
    return list(parsed.rows)


def refused(item: object) -> str:
    parsed = parse(json.dumps(item) + "\n")
    assert not parsed.rows
    return parsed.problems[0].reason


# Rows of our own


def test_rows_of_the_api_are_taken_as_they_are() -> None:
    fields = {"completion_id": "chatcmpl-1", "correction": "Four.", "note": "Count again."}
    assert rows(fields, {"rule": "Be brief."}) == [
        Row(fields, place="line 1"),
        Row({"rule": "Be brief."}, place="line 2"),
    ]


def test_half_a_character_is_read_as_its_stand_in() -> None:
    item = {"prompt": "Hi \ud83d", "completion": "\ude42", "correction": "🙂 \ud83d", "\ud83d": 1}
    (row,) = rows(item)
    assert (row.messages, row.completion) == ([{"role": "user", "content": "Hi \ufffd"}], "\ufffd")
    assert row.fields == {"correction": "🙂 \ufffd", "\ufffd": 1}


def test_a_row_may_bring_its_own_conversation() -> None:
    row = {"messages": QUESTION, "completion": "Marlowe.", "correction": "Shakespeare."}
    assert rows(row) == [Row({"correction": "Shakespeare."}, QUESTION, "Marlowe.", place="line 1")]
    assert rows({**row, "messages": None, "prompt": "And Hamlet?"})[0].messages == QUESTION


@pytest.mark.parametrize(
    "pair",
    [
        {"prompt": "And Hamlet?", "chosen": "Shakespeare.", "rejected": "Marlowe.", "score": 0.9},
        {
            "prompt": QUESTION,
            "chosen": [{"role": "assistant", "content": "Shakespeare."}],
            "rejected": [{"role": "assistant", "content": "Marlowe."}],
        },
    ],
)
def test_a_preference_pair_is_a_preference(pair: dict[str, Any]) -> None:
    (row,) = rows(pair)
    assert (row.messages, row.completion, row.fields["preferred"]) == (QUESTION, "Marlowe.", "Shakespeare.")


@pytest.mark.parametrize(
    ("said", "trust"),
    [
        ({}, "stated"),
        ({"trust": "inferred"}, "inferred"),
        ({"trust": "untrusted"}, "untrusted"),
        ({"source": "Tool"}, "untrusted"),
        ({"source": "untrusted", "trust": "stated"}, "untrusted"),
        ({"source": "notebook"}, "stated"),
    ],
)
def test_a_row_says_whose_words_it_holds(said: dict[str, str], trust: str) -> None:
    assert rows({"rule": "Be brief.", **said}) == [Row({"rule": "Be brief."}, trust=trust, place="line 1")]  # type: ignore[arg-type]


def test_a_tools_output_as_correction_is_not_the_users() -> None:
    tool = {"role": "tool", "tool_call_id": "1", "content": "The page says: it will rain in Oslo all day tomorrow."}
    row = {"messages": [*QUESTION, tool], "completion": "Sun.", "correction": "It will rain in Oslo all day tomorrow."}
    assert rows(row)[0].trust == "untrusted"
    assert rows({**row, "correction": "Take an umbrella."})[0].trust == "stated"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ([1], "not a JSON object"),
        ({"trust": "sure", "rule": "x"}, "trust is 'sure'"),
        ({"source": 1, "rule": "x"}, "source is 1"),
        ({"messages": QUESTION, "correction": "x"}, "needs completion"),
        ({"completion": "x", "correction": "y"}, "neither"),
        ({"messages": QUESTION, "prompt": "x", "completion": "x"}, "both"),
        ({"messages": QUESTION, "completion": "x", "completion_id": "chatcmpl-1"}, "of its own"),
        ({"prompt": "x", "chosen": "y"}, "needs rejected"),
        ({"prompt": 4, "chosen": "y", "rejected": "z"}, "no list of messages"),
    ],
)
def test_an_object_that_is_no_row_is_named(item: object, said: str) -> None:
    assert said in refused(item)


# Files


def test_bad_lines_are_named_and_good_ones_kept() -> None:
    parsed = parse('{"rule": "A."}\r\n\n{rule: 1}\n"text"\n{"rule": "B.", "x": NaN}\n{"rule": "C."}')
    assert [row.fields["rule"] for row in parsed.rows] == ["A.", "C."]
    assert [problem.place for problem in parsed.problems] == ["line 3", "line 4", "line 5"]
    assert "not JSON (Expecting property name" in parsed.problems[0].reason
    assert "NaN is not a JSON value" in parsed.problems[2].reason


def test_an_array_and_an_object_over_several_lines_are_read_too() -> None:
    assert [row.place for row in parse('[{"rule": "A."},\n {"rule": "B."}]').rows] == ["item 1", "item 2"]
    assert parse('{\n  "rule": "A."\n}\n').rows == (Row({"rule": "A."}, place="item 1"),)


def test_a_separator_within_a_text_does_not_part_a_line() -> None:
    assert parse('{"rule": "A\u2028B\x85C"}\n').rows[0].fields["rule"] == "A\u2028B\x85C"


@given(st.data())
def test_every_beginning_of_a_file_is_waited_for_or_ends_at_a_line(data: st.DataObject) -> None:
    text = '{"rule": "A \\u00e4 \\" b", "n": [true, null, -1.5e3, {"x": false}]}\n{"rule": "B"}\n'
    cut = data.draw(st.integers(0, len(text)))
    try:
        parsed = parse(text[:cut])
    except Unfinished:
        return
    assert not parsed.problems
    assert len(parsed.rows) == text[: cut + 1].count("\n")  # the last line break may be missing


@given(st.integers(0, 40))
def test_every_beginning_of_an_array_is_waited_for(cut: int) -> None:
    text = '[{"rule": "A \\u00e4"}, {"rule": "B.."}]'
    with pytest.raises(Unfinished):
        parse(text[: min(cut, len(text) - 1)])


def test_an_array_that_is_wrong_is_refused_at_once() -> None:
    with pytest.raises(BadFile, match="not JSON") as raised:
        parse('[{"rule": "A"},, {"rule": "B"}]')
    assert not isinstance(raised.value, Unfinished)


def test_nesting_without_end_is_refused() -> None:
    assert "nested too deeply" in parse('{"rule": "A"}\n' + '{"a":' * 100_000 + "\n").problems[0].reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark_are_read(encoding: str) -> None:
    assert decode("Grüße, 世界".encode(encoding)) == "Grüße, 世界"


@pytest.mark.parametrize(
    "data", ["Grüße".encode("latin-1"), b"\x89PNG\r\n\x1a\n\x00\x00", "a".encode("utf-16-le"), b"a\0"]
)
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(BadFile) as raised:
        decode(data)
    assert not isinstance(raised.value, Unfinished)


def test_a_cut_character_is_waited_for() -> None:
    with pytest.raises(Unfinished):
        decode("Grüß".encode()[:-1])


# Open WebUI


def exported(rating: object = 1, **data: object) -> dict[str, Any]:
    """An item of its feedback export: a question, a reply with folded reasoning, and another reply beside it."""
    thought = '<details type="reasoning" done="true" duration="1">\n<summary>Thought</summary>\n> hm\n</details>\n'
    tree = {
        "u1": {"id": "u1", "parentId": None, "childrenIds": ["a1"], "role": "user", "content": "Who wrote Emma?"},
        "a1": {"id": "a1", "parentId": "u1", "childrenIds": ["u2"], "role": "assistant", "content": "Austen."},
        "u2": {"id": "u2", "parentId": "a1", "childrenIds": ["a2", "a3"], "role": "user", "content": "And Hamlet?"},
        "a2": {"id": "a2", "parentId": "u2", "childrenIds": [], "role": "assistant", "content": thought + "Marlowe."},
        "a3": {"id": "a3", "parentId": "u2", "childrenIds": [], "role": "assistant", "content": "Kyd."},
    }
    chat = {"id": "", "title": "Books", "models": ["familiar"], "params": {}, "messages": []}
    return {
        "id": "fb",
        "user_id": "user-1",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "familiar", "reason": "other", "comment": "", "tags": [], **data},
        "meta": {"arena": False, "chat_id": "c", "message_id": "a2", "message_index": 4, "model_id": "familiar"},
        "snapshot": {
            "chat": {"id": "c", "user_id": "user-1", "title": "Books", "chat": {**chat, "history": {"messages": tree}}}
        },
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_100,
    }


def test_a_rating_comes_with_its_conversation_and_comment() -> None:
    (row,) = parse(json.dumps([exported(-1, comment="Too short.")])).rows
    assert row.fields == {"rating": -1, "note": "Too short."}
    assert row.completion == "Marlowe."
    assert row.messages == [
        {"role": "user", "content": "Who wrote Emma?"},
        {"role": "assistant", "content": "Austen."},
        {"role": "user", "content": "And Hamlet?"},
    ]
    assert (row.place, row.said_at, row.trust) == ("item 1", 1_700_000_100, "stated")


def test_the_reason_is_a_button_and_a_draw_says_nothing() -> None:
    assert parse(json.dumps([exported("1")])).rows[0].fields == {"rating": 1, "note": None}
    assert not parse(json.dumps([exported(0), exported(None)])).rows


def test_what_was_said_last_comes_last() -> None:
    later, earlier = exported(1), exported(-1)
    later["updated_at"] += 5
    assert [row.fields["rating"] for row in parse(json.dumps([later, earlier])).rows] == [-1, 1]


def test_a_system_prompt_of_the_chat_is_part_of_it() -> None:
    item = exported()
    item["snapshot"]["chat"]["chat"]["params"] = {"system": "Be kind."}
    (row,) = parse(json.dumps([item])).rows
    assert row.messages is not None
    assert row.messages[0] == {"role": "system", "content": "Be kind."}


def test_an_export_without_the_conversation_is_refused_by_item() -> None:
    bare, lost = exported(), exported()
    del bare["snapshot"]
    lost["meta"]["message_id"] = "a9"
    parsed = parse(json.dumps([bare, lost, exported()]))
    assert [problem.place for problem in parsed.problems] == ["item 1", "item 2"]
    assert "no snapshot" in parsed.problems[0].reason
    assert len(parsed.rows) == 1


def test_an_export_of_several_people_is_refused() -> None:
    with pytest.raises(BadFile, match="feedback of 2 people"):
        parse(json.dumps([exported(), {**exported(-1), "user_id": "user-2"}]))


def test_ratings_and_edits_in_a_chat_export_are_read() -> None:
    chat = exported()["snapshot"]["chat"]
    tree = chat["chat"]["history"]["messages"]
    tree["a1"] |= {"originalContent": "Brontë.", "timestamp": 1_700_000_000}
    tree["a3"] |= {"annotation": {"rating": -1, "comment": "Wrong."}, "timestamp": 1_700_000_001}
    edit, rating = parse(json.dumps([chat])).rows
    assert (edit.fields, edit.completion) == ({"correction": "Austen."}, "Brontë.")
    assert (rating.fields, rating.completion) == ({"rating": -1, "note": "Wrong."}, "Kyd.")
    assert not parse(json.dumps([exported()["snapshot"]["chat"]])).rows
