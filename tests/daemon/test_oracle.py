"""One loaded model answers for all that the learner asks."""

from pathlib import Path

from familiar.adapters.protocols import Progress, greedy
from familiar.daemon.oracle import ANSWER_TOKENS, Oracle
from familiar.memory.types import Message

ASK = (Message(role="user", content="How do I make a good pot of tea?"),)


def test_it_samples_scores_teaches_and_answers_alike(model_path: Path) -> None:
    heard: list[Progress] = []
    with Oracle.open(model_path, threads=1) as oracle:
        ((reply,),) = oracle.sample(None, [ASK], greedy(8), heard.append)
        (top,) = oracle.top_logps(None, [(ASK, reply.ids)], 2, heard.append)
        assert tuple(top.ids_TK[:, 0]) == reply.ids, "what is drawn greedily is what the teacher finds likeliest"
        assert {made.phase for made in heard} == {"rollouts", "teacher"}
        assert oracle.answer(ASK, {"max_completions_tokens": 8}) == reply.text == oracle.scorer.generate(None, ASK, 8)
        assert oracle.answer(ASK, {}) == oracle.scorer.generate(None, ASK, ANSWER_TOKENS)
        assert oracle.encode(ASK, "Yes.") == oracle.scorer.encode(ASK, "Yes.")
