"""One loaded model answers for all that the learner asks."""

from pathlib import Path
from typing import Any

import pytest

from familiar.adapters.protocols import Progress, greedy
from familiar.daemon.engine import ContextOverflow, Engine
from familiar.daemon.grader_service import LocalModel
from familiar.daemon.oracle import Oracle
from familiar.feedback import graders
from familiar.memory.types import Message

ASK = (Message(role="user", content="How do I make a good pot of tea?"),)
LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "tone",
    "model": "local",
    "labels": ["polite", "rude"],
    "passing_labels": ["polite"],
    "input": [{"role": "user", "content": "Is this polite or rude? {{sample.output_text}}"}],
}
SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "stars",
    "model": "local",
    "range": [-1e300, 1e300],
    "input": [{"role": "user", "content": "Rate this from 1 to 5: {{sample.output_text}}"}],
}


def test_it_samples_scores_teaches_and_answers_alike(model_path: Path) -> None:
    heard: list[Progress] = []
    with Oracle.open(model_path, threads=1) as oracle:
        ((reply,),) = oracle.sample(None, [ASK], greedy(8), heard.append)
        (top,) = oracle.top_logps(None, [(ASK, reply.ids)], 2, heard.append)
        assert tuple(top.ids_TK[:, 0]) == reply.ids, "what is drawn greedily is what the teacher finds likeliest"
        assert {made.phase for made in heard} == {"rollouts", "teacher"}
        assert reply.text == oracle.scorer.generate(None, ASK, 8)
        assert oracle.encode(ASK, "Yes.") == oracle.scorer.encode(ASK, "Yes.")


@pytest.mark.parametrize("definition", [LABEL, SCORE], ids=["label", "score"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "seed": 4, "top_p": 0.9}], ids=["greedy", "drawn"])
def test_a_grader_that_asks_a_model_is_answered_as_in_the_service(
    oracle: Oracle, engine: Engine, definition: dict[str, Any], sampling: dict[str, Any]
) -> None:
    """The answer is held to JSON; prose would be a failure, and a reward of 0, every time."""
    grader = graders.parse({**definition, "sampling_params": sampling})
    samples: list[graders.Pair] = [(text, {}) for text in ("Thank you, sir.", "Go away!", "Boil water. " * 60)]
    here = graders.run_many(grader, samples, score=oracle.answer)
    there = graders.run_many(grader, samples, score=LocalModel(engine))
    assert not here[0].errors
    assert [(grade.reward, grade.errors) for grade in here] == [(grade.reward, grade.errors) for grade in there]


def test_what_a_grader_says_of_sampling_counts(oracle: Oracle) -> None:
    schema = {"enum": [str(number) for number in range(100)]}
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "result", "schema": schema}}}
    drawn = [oracle.answer(ASK, {**form, "temperature": 2.0, "seed": seed}) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert len({oracle.answer(ASK, {**form, "seed": seed}) for seed in (1, 2, 3)}) == 1, "greedy unless it says more"
    assert len(oracle.answer(ASK, {**form, "max_completions_tokens": 1})) < len(drawn[0])
    long = [Message(role="user", content="Tea? " * oracle.scorer.context_tokens)]
    with pytest.raises(ContextOverflow):
        oracle.answer(long, form)
