"""What a fine-tuning job does in the learner's process, step by step: read, encode, train, publish.

The files alone are learnt: no memory, no feedback, and no gate, as whoever uploads data judges the result. Every pass
over the data leaves a checkpoint, of which the last ``CHECKPOINTS`` are kept and served. The finished model is the last
one, as with the hosted service: by the validation figures a better one can be chosen. torch is imported inside the
steps that need it.
"""

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from familiar.adapters import registry
from familiar.adapters.folders import file_sha256
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded, reference_keys
from familiar.daemon import base_models, fine_tuning_files, fine_tuning_recipe, model_files, training_model
from familiar.daemon.files_store import FilesStore
from familiar.daemon.fine_tuning_data import Prompted, Row, Supervised
from familiar.daemon.fine_tuning_folders import run_folder, step_folder
from familiar.daemon.fine_tuning_log import JobLog, results_csv, step_figures
from familiar.daemon.fine_tuning_report import Context, Reporter, publish
from familiar.daemon.references import storing
from familiar.daemon.scorer import LlamaScorer
from familiar.daemon.settings import Settings
from familiar.memory.errors import InvalidInput
from familiar.memory.finetuning_types import Job, TunedModel
from familiar.memory.store import Store

MEASURED_ROWS = 16
"""Without a validation file, so many of the training rows are what checkpoints are measured on."""


def tune(
    settings: Settings, store: Store, job: Job, check_stop: Callable[[], None], clock: Callable[[], float] = time.time
) -> None:
    """Do all that is left of a job, and end it as succeeded. Raises FamiliarError where it cannot be done."""
    context = Context(settings, store, job, _base(settings, job), JobLog(store, job, clock), check_stop, clock)
    files = FilesStore(store, settings.data_dir, clock)
    rows: list[Any] = list(fine_tuning_files.rows(files, job, "training_file"))
    held_out: list[Any] = list(fine_tuning_files.rows(files, job, "validation_file"))
    if fine_tuning_recipe.type_of(job.method) == "reinforcement":
        from familiar.daemon import fine_tuning_policy

        tokens, steps = fine_tuning_policy.train(context, rows, held_out)
    else:
        tokens, steps = _imitate(context, rows, held_out)
    check_stop()
    _publish_last(context, tokens, steps)


def _base(settings: Settings, job: Job) -> Path:
    base = model_files.resolve(settings.model)
    if base_models.identify(base, settings.data_dir).sha256 != job.base_sha256:
        raise InvalidInput(
            "The service has another base model than when the job was created: create the job anew, or serve that one.",
            "model",
        )
    return base


def _imitate(context: Context, rows: Sequence[Row], held_out: Sequence[Row]) -> tuple[int, int]:
    """Train on replies that are given; return how many tokens were read for it, and in how many steps."""
    store, settings, job, log = context.store, context.settings, context.job, context.log
    with LlamaScorer.open(context.base, threads=settings.threads) as scorer:
        limit = scorer.context_tokens
        trained = _fitting(scorer, rows, limit, log, job.training_file)
        measured = _fitting(scorer, held_out, limit, log, job.validation_file or "")
    if not trained:
        raise InvalidInput(f"Every line is longer than the {limit} tokens that the model reads.", "training_file")
    validated = bool(measured)
    if not validated:
        measured = trained[:: math.ceil(len(trained) / MEASURED_ROWS)]
        log.say(f"No validation data: all rows are trained on, and {len(measured)} of them measure the checkpoints.")
    recipe = fine_tuning_recipe.recipe(job.method, Recipe.from_dict(settings.recipe), job.seed, len(trained))
    context.check_stop()
    base = training_model.load(context.base, settings.threads)
    context.check_stop()
    from familiar.adapters.train import train

    references = store.cached_logps(job.base_sha256, reference_keys([*trained, *measured]))
    report = Reporter(context, validated=validated)
    train(
        base,
        trained,
        measured,
        recipe,
        folder=run_folder(settings.data_dir, job),
        reference_logps=references,
        progress=storing(store, job.base_sha256, references, report),
    )
    read = sum(len(row.prompt_ids) + len(row.chosen_ids) + len(row.rejected_ids or ()) for row in trained)
    return read * recipe.epochs, math.ceil(len(trained) / recipe.batch_size) * recipe.epochs


def _fitting(scorer: LlamaScorer, rows: Sequence[Row], limit: int, log: JobLog, file_id: str) -> list[Encoded]:
    """The rows as token ids, without those that the model cannot read, of which it tells."""
    encoded = [(row, each) for row in rows for each in _encoded(scorer, row)]
    long = sorted({row.line for row, each in encoded if each.tokens > limit})
    if long:
        named = ", ".join(map(str, long[:10])) + (", …" if len(long) > 10 else "")
        log.say(f"{file_id}: line {named}: longer than the {limit} tokens that the model reads, so left out.", "warn")
    return [each for _, each in encoded if each.tokens <= limit]


def _encoded(scorer: LlamaScorer, row: Row) -> list[Encoded]:
    """One row of training for each reply that is learnt."""
    if isinstance(row, Supervised):
        pairs = [(row.messages[:at], row.messages[at]["content"]) for at in row.targets]
        ids = [scorer.encode(messages, reply) for messages, reply in pairs]
        return [
            Encoded(f"line-{row.line}-{number}", tuple(prompt), tuple(reply))
            for number, (prompt, reply) in enumerate(ids)
        ]
    if isinstance(row, Prompted):
        raise TypeError("a prompt alone has no reply to imitate")
    prompt, preferred = scorer.encode(row.messages, row.preferred)
    rejected = scorer.encode(row.messages, row.rejected)[1]
    return [Encoded(f"line-{row.line}", tuple(prompt), tuple(preferred), tuple(rejected))]


def _publish_last(context: Context, trained_tokens: int, steps: int) -> None:
    """End the job with what the last of its ``steps`` left as its model."""
    store, job, data_dir = context.store, context.job, context.settings.data_dir
    model = TunedModel(job.name, job.user_id, job.id, context.clock(), steps, job.base_sha256, "")
    gguf = step_folder(data_dir, model) / registry.GGUF
    if gguf.is_file():
        model = replace(model, gguf_sha256=file_sha256(gguf))
    else:
        # Its checkpoint was deleted meanwhile, or the process was killed before it was published.
        from familiar.adapters import checkpoints

        model = publish(context, checkpoints.epoch_folders(run_folder(data_dir, job))[-1], steps)
    figures = step_figures(store.fine_tuning.events(job.user_id, job.id))
    files = FilesStore(store, data_dir, context.clock)
    results = files.add(job.user_id, "step_metrics.csv", "fine-tune-results", io.BytesIO(results_csv(figures)))
    if not store.fine_tuning.succeed(job.id, model, context.clock(), trained_tokens, results.id):
        files.delete(job.user_id, results.id)  # it was cancelled in the last moment
        return
    context.log.say(f"New fine-tuned model created: {model.id}")
    context.log.say("The job has successfully completed")
