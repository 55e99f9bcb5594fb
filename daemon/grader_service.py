"""What people do with graders: say one by its name or in JSON, keep it with a rule, and run it on the served model.

Free of HTTP and of the terminal. What is left out: learning from them.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from familiar.daemon.engine import Engine, Sampling
from familiar.daemon.grammar.json_grammar import json_schema_grammar
from familiar.feedback import graders, ready_graders
from familiar.feedback.graders import Embed, Grade, Grader
from familiar.feedback.ready_graders import READY, Ready
from familiar.memory.errors import InvalidInput
from familiar.memory.store import Store
from familiar.memory.types import Message, StoredGrader

MAX_SAMPLE = 200_000
"""Characters of a sample that is graded over the API."""
MAX_FILE_BYTES = 2_000_000

_ANSWER_TOKENS = 128
_FLAGS = (
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_refusal_error",
    "model_grader_server_error",
    "other_error",
    "python_grader_runtime_error",
    "python_grader_server_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
)


class LocalModel:
    """Asks the served base model, greedily unless the grader says otherwise; ``tokens`` counts what that took."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tokens = 0

    def __call__(self, messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str:
        """The reply, held to the JSON that the grader wants; see ``graders.ScoreModel``."""
        # Exact: the same sample gets the same grade, whatever else the service does meanwhile.
        generation = self._engine.generate(self._engine.encode_prompt(messages), sampling_of(sampling), exact=True)
        reply = "".join(chunk.text for chunk in generation)
        self.tokens += generation.usage.prompt_tokens + generation.usage.completion_tokens
        return reply


def sampling_of(said: Mapping[str, Any]) -> Sampling:
    """The engine's knobs for what a grader says of sampling; see ``graders.ScoreModel``.

    Raises InvalidInput for a schema that no grammar can be made of, and a value out of range.
    """
    return Sampling(
        temperature=float(said.get("temperature", 0.0)),
        top_p=float(said.get("top_p", 1.0)),
        seed=said.get("seed"),
        max_tokens=said.get("max_completions_tokens", _ANSWER_TOKENS),
        grammar=json_schema_grammar(said["response_format"]["json_schema"]["schema"], param="grader"),
    )


def run(engine: Engine, definition: Mapping[str, Any], sample: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Grade one sample, and answer as OpenAI's ``graders/run`` does.

    Raises ``InvalidInput`` for a definition that cannot be run, also for want of a sentence model.
    """
    grader = graders.parse(definition)
    embed = _embed(engine)
    if embed is None and graders.needs_embedder(grader):
        raise InvalidInput(
            "The metric cosine compares sentence vectors, but the service has no sentence model: `familiar pull "
            "minilm` gets one; then start the service anew.",
            "grader.evaluation_metric",
        )
    model = LocalModel(engine)
    grade = graders.run(grader, sample=sample, item=item, score=model, embed=embed)
    return _answer(definition, grader, grade, model.tokens)


def _embed(engine: Engine) -> Embed | None:
    if engine.embedding_model is None:
        return None
    return lambda texts: engine.embed(texts, truncate=True)[0]


def _answer(definition: Mapping[str, Any], grader: Grader, grade: Grade, tokens: int) -> dict[str, Any]:
    asked = graders.needs_model(grader)
    return {
        "reward": grade.reward,
        "metadata": {
            "name": grader.name,
            "type": definition["type"],
            "errors": {**dict.fromkeys(_FLAGS, False), **grade.errors},
            "execution_time": grade.seconds,
            "scores": dict(grade.sub_rewards),
            "token_usage": tokens if asked else None,
            "sampled_model_name": None,
        },
        "sub_rewards": dict(grade.sub_rewards),
        "model_grader_token_usage_per_model": {"familiar:base": tokens} if asked else {},
    }


def named(said: str) -> dict[str, Any]:
    """The definition that was typed: a ready grader as ``max_words=50``, or the path of a JSON file that holds one.

    Raises ``InvalidInput`` or ``NotFound``, also for a definition that could not be run.
    """
    definition = _from_file(Path(said)) if said.endswith(".json") and "=" not in said else ready_graders.from_text(said)
    graders.parse(definition)
    return definition


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.expanduser().open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror or error}): name another file.", "grader"
        ) from error
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path} is not JSON: it should hold one grader, an object with a type.", "grader") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is not a JSON object: it should hold one grader.", "grader")
    return found


def keep(store: Store, user_id: int, definition: Mapping[str, Any], memory_id: str | None, now: float) -> StoredGrader:
    """Keep a grader, with the rule that it checks. Raises as ``graders.parse`` and ``Store.add_grader`` do."""
    name = graders.parse(definition).name
    return store.add_grader(
        StoredGrader(f"grader-{secrets.token_hex(12)}", user_id, now, name, dict(definition), memory_id)
    )


def grader_object(grader: StoredGrader) -> dict[str, Any]:
    """A kept grader as JSON."""
    return {
        "object": "grader",
        "id": grader.id,
        "name": grader.name,
        "memory_id": grader.memory_id,
        "created": int(grader.created_at),
        "grader": dict(grader.definition),
    }


def ready_object(ready: Ready) -> dict[str, Any]:
    """A ready grader as JSON: what it checks, and what it has to be told."""
    return {
        "object": "grader.ready",
        "name": ready.name,
        "description": ready.says,
        "parameters": dict(ready.parameters),
    }


def ready_objects() -> list[dict[str, Any]]:
    """All of them."""
    return [ready_object(each) for each in READY.values()]
