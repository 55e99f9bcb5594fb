"""Training files: what is read from them, and that what is wrong is said with its line."""

import json
from typing import Any

import pytest

from familiar.daemon import fine_tuning_recipe
from familiar.daemon.fine_tuning_data import BadData, MethodType, Preferred, Prompted, Row, Supervised, rows
from familiar.daemon.fine_tuning_log import results_csv
from familiar.memory.errors import InvalidInput

ASK = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Good day."}


def lines(*given: Any) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in given]


def read(method: MethodType, given: list[bytes]) -> list[Row]:
    return list(rows(method, given))


def line(row: Any) -> bytes:
    return lines(row)[0]


def test_supervised_rows_learn_every_reply_but_those_of_weight_0() -> None:
    system = {"role": "developer", "content": "Be kind."}
    turns = [system, ASK, {**REPLY, "weight": 0}, ASK, {**REPLY, "weight": 1}, ASK, REPLY]
    (row,) = read("supervised", lines({"messages": turns}))
    assert isinstance(row, Supervised)
    assert (row.line, row.targets) == (1, (4, 6))
    assert row.messages[0] == {"role": "system", "content": "Be kind."}
    assert row.messages[4] == {"role": "assistant", "content": "Good day."}


def test_preferences_and_prompts() -> None:
    wanted, unwanted = [{"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}], [REPLY]
    given = {"input": {"messages": [ASK], "tools": []}, "preferred_output": wanted, "non_preferred_output": unwanted}
    (row,) = read("dpo", [b"\xef\xbb\xbf" + lines(given)[0], b"\n"])
    assert row == Preferred(1, ({"role": "user", "content": "Hi"},), "Yes.", "Good day.")
    (prompt,) = read("reinforcement", [b"\r\n", *lines({"messages": [ASK], "answer": 7})])
    assert isinstance(prompt, Prompted)
    assert (prompt.line, prompt.item["answer"]) == (2, 7)


def test_half_a_character_is_read_as_the_one_that_stands_for_what_is_unknown() -> None:
    half = {**ASK, "content": "Hi \ud83d"}
    (row,) = read("supervised", lines({"messages": [half, REPLY]}))
    (prompt,) = read("reinforcement", lines({"messages": [ASK], "answer": "\ud83d"}))
    assert row.messages[0]["content"] == "Hi \ufffd"
    assert isinstance(prompt, Prompted)
    assert prompt.item["answer"] == "\ufffd"


BAD: list[tuple[MethodType, bytes, str]] = [
    ("supervised", b"{'messages': []}", "This is not JSON"),
    ("supervised", b'{"messages": [', "at column"),
    ("supervised", b'{"messages": NaN}', "JSON has no NaN"),
    ("supervised", b'{"messages": "\xff"}', "Byte 15 is not UTF-8"),
    ("supervised", b"[1]", "This is a list, not a JSON object"),
    ("supervised", b'"text"', "This is a text"),
    ("supervised", b"[" * 100_000, "This is not JSON"),
    ("supervised", b'{"prompt": "a", "completion": "b"}', "Missing required parameter: messages"),
    ("supervised", line({"messages": []}), "messages: "),
    ("supervised", line({"messages": [ASK]}), "nothing to learn"),
    ("supervised", line({"messages": [ASK, {**REPLY, "weight": 0}]}), "nothing to learn"),
    ("supervised", line({"messages": [ASK, {**REPLY, "weight": 0.5}]}), "messages[1].weight: Input should be 0 or 1"),
    ("supervised", line({"messages": [{**ASK, "weight": 1}, REPLY]}), "Only an assistant's message has a weight"),
    ("supervised", line({"messages": [REPLY]}), "no user's message comes before it"),
    ("supervised", line({"messages": [ASK, {"role": "assistant", "content": ""}]}), "messages[1] is empty"),
    ("supervised", line({"messages": [ASK, {"role": "assistant"}]}), "needs content"),
    ("supervised", line({"messages": [ASK, {"role": "bot", "content": "x"}]}), "messages[1].role"),
    ("supervised", line({"messages": [ASK, {**REPLY, "mood": "good"}]}), "Unknown parameter: messages[1].mood"),
    ("supervised", line({"messages": [ASK, REPLY], "tools": [{"type": "function"}]}), "does not support tools"),
    ("supervised", line({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]}), "image_url"),
    ("dpo", line({"messages": [ASK, REPLY]}), "Missing required parameter: input"),
    ("dpo", line({"input": {"messages": [ASK]}, "preferred_output": [REPLY]}), "non_preferred_output"),
    (
        "dpo",
        line({"input": {"messages": [ASK]}, "preferred_output": [REPLY], "non_preferred_output": [REPLY]}),
        "say the same",
    ),
    (
        "dpo",
        line({"input": {"messages": [ASK]}, "preferred_output": [ASK], "non_preferred_output": [REPLY]}),
        "preferred_output[0] has the role user",
    ),
    (
        "dpo",
        line({"input": {"messages": [ASK, REPLY]}, "preferred_output": [REPLY], "non_preferred_output": [REPLY]}),
        "input.messages ends with a message of role assistant",
    ),
    ("reinforcement", line({"messages": [ASK, REPLY]}), "messages ends with a message of role assistant"),
    ("reinforcement", line({"prompt": "Hi"}), "Missing required parameter: messages"),
]


@pytest.mark.parametrize(("method", "bad", "said"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_said_with_its_line(method: MethodType, bad: bytes, said: str) -> None:
    good = {
        "supervised": {"messages": [ASK, REPLY]},
        "dpo": {
            "input": {"messages": [ASK]},
            "preferred_output": [REPLY],
            "non_preferred_output": [{**REPLY, "content": "No."}],
        },
        "reinforcement": {"messages": [ASK]},
    }
    with pytest.raises(BadData) as wrong:
        read(method, [*lines(good[method]), b"\n", bad])
    assert str(wrong.value).startswith("Line 3: ")
    assert said in str(wrong.value)


def test_a_file_of_empty_lines_has_none() -> None:
    with pytest.raises(BadData, match="no lines"):
        read("supervised", [b"\n", b"  \n"])


def test_auto_is_settled_by_how_many_rows_there_are() -> None:
    auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier", "beta"), "auto")
    method = {"type": "dpo", "dpo": {"hyperparameters": auto}}
    few, many = fine_tuning_recipe.resolved(method, 2), fine_tuning_recipe.resolved(method, 1000)
    assert few["dpo"]["hyperparameters"] == {
        "n_epochs": 16,
        "batch_size": 2,
        "learning_rate_multiplier": 1.0,
        "beta": 0.1,
    }
    assert many["dpo"]["hyperparameters"]["n_epochs"] == 3
    assert fine_tuning_recipe.resolved(few, 1000) == few


def test_a_grader_that_a_job_cannot_use_is_refused() -> None:
    similarity = {"type": "text_similarity", "name": "s", "input": "{{sample.output_text}}", "reference": "x"}
    fine_tuning_recipe.check_grader({**similarity, "evaluation_metric": "bleu"})
    with pytest.raises(InvalidInput, match="cosine"):
        fine_tuning_recipe.check_grader({**similarity, "evaluation_metric": "cosine"})


def test_the_results_have_a_row_for_each_step() -> None:
    figures = [{"step": 1, "train_loss": 2.5, "total_steps": 2}, {"step": 2, "train_loss": 2.0, "valid_loss": 2.25}]
    assert results_csv(figures).decode().splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,2.5,,,",
        "2,2.0,,2.25,",
    ]
