"""``familiar models`` and ``familiar pull``: which models are on this machine, and how another one gets here."""

import json
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_options import load_settings, store_options
from familiar.memory.errors import BadFile

if TYPE_CHECKING:
    from familiar.daemon.model_facts import ModelFacts
    from familiar.daemon.model_listing import ListedModel


@click.command()
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in it are bytes.")
def models(as_json: bool, **flags: Any) -> None:
    """List the models on this machine; * marks the one that is configured."""
    settings = load_settings(flags)
    from familiar.daemon import sentence_model
    from familiar.daemon.model_listing import list_models, models_folder

    listed = list_models(settings.data_dir, settings.model)
    for_memory = sentence_model.here(settings)
    if as_json:
        entries = [_entry(model) for model in listed]
        path = None if for_memory is None else str(for_memory)
        click.echo(json.dumps({"configured": settings.model, "models": entries, "embedding_model": path}))
        return
    width = max(len(model.id) for model in listed)
    click.echo(f"    {'model':{width}}      size  parameters   context  architecture")
    for model in listed:
        click.echo(
            f"  {'*' if model.configured else ' '} {model.id:{width}}  {_size(model.size_bytes):>8}  {_row(model)}"
        )
    if not any(model.configured for model in listed):
        click.echo(f"The configured model, {settings.model}, is not here: `familiar pull {settings.model}` fetches it.")
    if for_memory is not None:
        click.echo(f"Memories are found by meaning with {for_memory} ({_size(for_memory.stat().st_size)}).")
    elif settings.embedding_model == sentence_model.NONE:
        click.echo("Memories are found by their words alone, as embedding_model says.")
    else:
        wanted = sentence_model.ALIAS if settings.embedding_model == sentence_model.AUTO else settings.embedding_model
        click.echo(f"Memories are found by their words alone: `familiar pull {wanted}` fetches a model of meaning.")
    click.echo(
        f"Others: `familiar pull USER/REPO` from the model hub, or GGUF files in {models_folder(settings.data_dir)}."
    )


def _row(model: "ListedModel") -> str:
    if model.facts is None:
        return f"damaged: {model.error}"
    facts = model.facts
    return f"{_count(facts.parameters):>10}  {facts.context_tokens:>8}  {facts.architecture}"


def _entry(model: "ListedModel") -> dict[str, Any]:
    entry = {
        "id": model.id,
        "path": str(model.path),
        "size_bytes": model.size_bytes,
        "configured": model.configured,
        "error": model.error,
    }
    if model.facts is not None:
        entry |= {
            "name": model.facts.name,
            "architecture": model.facts.architecture,
            "parameters": model.facts.parameters,
            "context_tokens": model.facts.context_tokens,
            "chat_template": model.facts.has_chat_template,
        }
    return entry


@click.command()
@click.argument("model", metavar="ID")
def pull(model: str) -> None:
    """Download a model from the hub, unless it is here already, and check it. ID is what --model takes.

    USER/REPO takes the repository's one file, its Q8_0 or its Q4_K_M; USER/REPO:QUANT another, and USER/REPO/FILE that
    very file. `minilm` is the sentence model by which memories are found by meaning.
    """
    from familiar.daemon import model_files, sentence_model
    from familiar.daemon.model_facts import read_facts

    def say(line: str) -> None:
        click.echo(line, err=True)

    for_memory = model == sentence_model.ALIAS
    facts = read_facts(sentence_model.pull(say) if for_memory else model_files.pull(model, say))
    if facts.is_adapter:
        raise BadFile(f"{facts.path} is a LoRA adapter and not a model: pull the model that it was made for.")
    for line in _described(facts):
        click.echo(line)
    if for_memory:
        click.echo("Memories are found by it from the next start of the service on.")
    else:
        click.echo(f"Serve it: familiar serve --model {model}")


def _described(facts: "ModelFacts") -> list[str]:
    template = "yes" if facts.has_chat_template else "none: ChatML is used"
    return [
        facts.name,
        f"  path           {facts.path}",
        f"  size           {_size(facts.size_bytes)}",
        f"  architecture   {facts.architecture}",
        f"  parameters     {_count(facts.parameters)}",
        f"  context        {facts.context_tokens} tokens",
        f"  chat template  {template}",
    ]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _count(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f} B"
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else str(parameters)
