"""Memories as a person reads them in the terminal: lines of text, from the API's JSON objects.

The commands and the chat share these, so that both call a thing the same. Pure, but for the time zone.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from familiar.daemon.memory_objects import FORGOTTEN
from familiar.daemon.model_ids import shows_memory

Object = Mapping[str, Any]

LINE_CHARACTERS = 100


def said(memory: Object) -> str:
    """What a memory says, in full."""
    return str(memory["text"]) if memory["prompt"] is None else f'to "{memory["prompt"]}": "{memory["text"]}"'


def one_line(text: str, characters: int = LINE_CHARACTERS) -> str:
    """``text`` on one line, cut to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def state_of(memory: Object) -> str:
    """The state in a word; an active memory may be "pinned", or in the adapter that is in service, "in v3"."""
    if memory["state"] == "active" and memory["pinned"]:
        return "pinned"
    version = memory["consolidated_in"]
    return str(memory["state"]) if version is None else f"in v{version}"


def table(memories: Sequence[Object], short: Mapping[str, str]) -> list[str]:
    """A headed line per memory; ``short`` gives the ids as they are shown. Found ones begin with their score."""
    rows: list[tuple[str, ...]] = [("id", "stated", "kind", "applies", "state", "uses", "text")]
    for each in memories:
        shown_id = short.get(each["id"], each["id"])
        day, text = date(each["created"]), one_line(said(each))
        rows.append((shown_id, day, each["kind"], each["scope"], state_of(each), str(each["uses"]), text))
    if any("score" in each for each in memories):
        scores = ["score", *(f"{each['score']:.2f}" for each in memories)]
        rows = [(row[0], score, *row[1:]) for row, score in zip(rows, scores, strict=True)]
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length with their columns aligned; the last one is as long as it is."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


def detail(memory: Object) -> list[str]:
    """Everything that is known of one memory, as ``GET /v1/memories/{id}`` answers it."""
    applies = {
        "always": "always",
        "related": "to requests that it has to do with",
        "conversation": f"in the conversation {memory['conversation_id']}",
    }[memory["scope"]]
    state = state_of(memory)
    if memory["consolidated_in"] is not None:
        state += ": this adapter version follows it without being shown it"
    if memory["ended"] is not None:
        state += f" since {moment(memory['ended'])}"
    if memory["superseded_by"]:
        state += f" by {memory['superseded_by']}"
    about = f", about the reply {memory['completion_id']}" if memory["completion_id"] else ""
    origin = f"{memory['source']}{', as ' + memory['feedback_id'] if memory['feedback_id'] else ''}{about}"
    last = f", last {moment(memory['last_used'])}" if memory["last_used"] is not None else ""
    facts = [
        ("kind", memory["kind"]),
        ("text", memory["text"]),
        *([("prompt", memory["prompt"])] if memory["prompt"] is not None else []),
        ("applies", applies),
        ("state", state),
        ("stated", moment(memory["created"])),
        ("from", origin),
        ("used", f"{memory['uses']} time{'' if memory['uses'] == 1 else 's'}{last}"),
    ]
    lines = [memory["id"], *(f"  {line}" for line in columns(facts))]
    if len(memory["history"]) > 1:
        lines += ["history, oldest first", *(f"  {line}" for line in history(memory["history"], memory["id"]))]
    if memory["shown_in"]:
        lines += ["last used in", *(f"  {line}" for line in columns([_use(use) for use in memory["shown_in"]]))]
    return lines


def history(memories: Sequence[Object], this: str) -> list[str]:
    """A line for each memory that took another's place; ``this`` is marked."""
    return columns(
        [
            (
                "*" if each["id"] == this else " ",
                moment(each["created"]),
                each["id"],
                state_of(each),
                one_line(said(each)),
            )
            for each in memories
        ]
    )


def why(reply: Object) -> list[str]:
    """What a reply was made with, and why: of ``GET /v1/exchanges/{id}`` or its ``/why``."""
    version, memories = reply["adapter_version"], reply["memories"]
    made_by = "the base model" if version is None else f"adapter v{version} on the base model"
    shown = sum(memory["reason"] != "learnt" for memory in memories)
    count = "one memory" if shown == 1 else f"{shown or 'no'} memories"
    untold = f", following {len(memories) - shown} untold" if shown < len(memories) else ""
    never = "" if shows_memory(reply["model"]) else ", as this model never is"
    lines = [f"{reply['model']}: {made_by}, shown {count}{untold}{never}"]
    for memory in memories:
        gone = memory["state"] == FORGOTTEN
        since = "" if memory["state"] == "active" else f", {memory['state']} since"
        lines.append(f"  {memory['id']}: {'(forgotten)' if gone else said(memory)}")
        lines.append(f"    {memory['why']}{since}")
    return lines


def forgotten(report: Object) -> list[str]:
    """What is to be said after forgetting, where it was more or less than what was asked for."""
    lines = []
    if report["adapter_versions"]:
        versions = ", ".join(f"v{number}" for number in report["adapter_versions"])
        lines.append(
            f"Trained on it before, and not unlearned: {versions}. `familiar rollback` serves an earlier version."
        )
    lines += [f"Not cleaned: {left}" for left in report["left"]]
    if not report["finished"]:
        lines.append("Another program was reading the store, so free space in its file may hold the text a while yet.")
    return lines


def date(at_s: float) -> str:
    """The day, here."""
    return time.strftime("%Y-%m-%d", time.localtime(at_s))


def moment(at_s: float) -> str:
    """The minute, here."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


def _use(use: Object) -> tuple[str, ...]:
    return moment(use["created"]), use["completion_id"], use["why"], one_line(use["prompt"], 60)
