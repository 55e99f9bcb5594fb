"""The gate's probes are well formed, and a right answer is told from a wrong one."""

from pathlib import Path

import pytest

from familiar.adapters.probes import Question, load_probes
from familiar.memory.errors import BadFile


def test_there_are_enough_of_each_kind() -> None:
    probes = load_probes()
    assert len(probes.general) >= 40
    assert len(probes.neutral) >= 12
    assert len(probes.false_claims) >= 20
    assert len(probes.passages) >= 6
    assert len({question.messages[-1]["content"] for question in probes.general}) == len(probes.general)


def test_every_answer_stands_in_its_prompt_and_not_in_its_question() -> None:
    for question in load_probes().general:
        system, user = (message["content"] for message in question.messages)
        assert question.is_answered(system), user
        assert not question.is_answered(user), user


def test_conversations_end_with_the_user() -> None:
    probes = load_probes()
    asked = [*(row.messages for row in probes.general), *(row.messages for row in probes.neutral)]
    for messages in [*asked, *probes.false_claims]:
        assert messages[-1]["role"] == "user"
        assert all(message["content"].strip() for message in messages)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("It opens at 9.", True),
        ("At NINE o'clock.", True),
        ("It opens at 19.", False),
        ("At ninety.", False),
        ("", False),
    ],
)
def test_words_are_matched_whole(reply: str, right: bool) -> None:
    assert Question((), ("9", "nine")).is_answered(reply) is right


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "probes.jsonl").write_text('{"kind": "general", "messages": []}\n')
    with pytest.raises(BadFile, match="not a readable file of probes"):
        load_probes(tmp_path / "probes.jsonl")


def test_no_anchor_is_a_probe() -> None:
    """What training is held to must not be what the gate asks."""
    probes = load_probes()
    asked = [*(row.messages for row in probes.general), *(row.messages for row in probes.neutral), *probes.false_claims]
    assert len(probes.anchors) >= 100
    assert [anchor for anchor in probes.anchors if anchor.messages in asked] == []
    assert {anchor.reply for anchor in probes.anchors}.isdisjoint(probes.passages)
