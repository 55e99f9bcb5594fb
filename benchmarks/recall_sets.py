"""The sets that recall is measured on: what is remembered, what is asked, and which memories belong to the answer.

Three are public sets that are not part of this project; a folder with their files is named by ``--data``. Two are our
own (``data/corrections.jsonl``, ``data/direct.jsonl``), with requests to which nothing applies
(``data/unrelated.jsonl``).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from familiar.memory.types import MemoryKind

OWN = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Said:
    """One memory: ``place`` names the conversation in which it was said, where that is known."""

    text: str
    kind: MemoryKind = "fact"
    prompt: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Case:
    """A request and the positions of the memories that belong to it: none where nothing applies."""

    request: str
    wanted: frozenset[int]


@dataclass(frozen=True)
class RecallSet:
    """What one person's store holds and what they ask."""

    name: str
    memories: tuple[Said, ...]
    cases: tuple[Case, ...]
    unrelated: tuple[str, ...] = ()


def load(data: Path | None) -> Iterator[RecallSet]:
    """Every set whose file is there; LoCoMo is one set per conversation, all named alike."""
    unrelated = tuple(row["request"] for row in _lines(OWN / "unrelated.jsonl"))
    yield _own("corrections", unrelated)
    yield _own("direct", unrelated)
    if data is None:
        return
    for file, read in (
        ("prefeval_preferences.json", _preferences),
        ("counterfact_1k.json", _facts),
        ("locomo_conversations_1-5.json", _conversations),
    ):
        if (data / file).is_file():
            yield from read(json.loads((data / file).read_text(encoding="utf-8")))


def _own(name: str, unrelated: tuple[str, ...]) -> RecallSet:
    """Our own: ``corrections`` apply to requests that hardly share a word with them, ``direct`` are asked plainly."""
    rows = list(_lines(OWN / f"{name}.jsonl"))
    memories = tuple(Said(row["memory"], row.get("kind", "fact"), row.get("prompt")) for row in rows)
    cases = tuple(Case(request, frozenset({place})) for place, row in enumerate(rows) for request in row["applies"])
    return RecallSet(name, memories, cases, unrelated)


def _preferences(rows: Sequence[Any]) -> Iterator[RecallSet]:
    """PrefEval (Zhao et al., ICLR 2025): a preference, and a question that does not name it."""
    yield RecallSet(
        "preferences",
        tuple(Said(row["preference"], "rule") for row in rows),
        tuple(Case(row["question"], frozenset({place})) for place, row in enumerate(rows)),
    )


def _facts(rows: Sequence[Any]) -> Iterator[RecallSet]:
    """CounterFact (Meng et al., NeurIPS 2022): a corrected fact, asked for in other words, and one that is not its."""
    yield RecallSet(
        "facts",
        tuple(Said(f"{row['prompt']} {row['target_new']}") for row in rows),
        tuple(Case(row["rephrase_prompt"], frozenset({place})) for place, row in enumerate(rows)),
        tuple(row["locality_prompt"] for row in rows),
    )


def _conversations(rows: Sequence[Any]) -> Iterator[RecallSet]:
    """LoCoMo (Maharana et al., ACL 2024): the turns of a long conversation, and which of them answer a question."""
    for row in rows:
        turns: list[tuple[str, Said]] = []
        number = 1
        while session := row["conversation"].get(f"session_{number}"):
            for turn in session:
                photo = f" [photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
                said = Said(f"{turn['speaker']}: {turn['text']}{photo}", place=f"session {number}")
                turns.append((turn["dia_id"], said))
            number += 1
        places = {dia_id: place for place, (dia_id, _) in enumerate(turns)}
        cases = []
        for question in row["qa"]:
            wanted = frozenset(places[dia_id] for dia_id in question.get("evidence", ()) if dia_id in places)
            if wanted:
                cases.append(Case(question["question"], wanted))
        yield RecallSet("conversations", tuple(said for _, said in turns), tuple(cases))


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
