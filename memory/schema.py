"""The tables of the store, as an append-only list of migrations in plain SQL.

How to read it: every table and column is commented where it is made, and SQLite keeps those comments
(``sqlite3 familiar.db .schema`` shows them). Units are in the names: ``_s`` is seconds, and a time ending in ``_at_s``
counts from the epoch, UTC; ``_ms`` is milliseconds; ``_json`` is JSON as text; ``_nats`` is a natural logarithm.
``seq`` is the order of insertion: it settles equal times, and the full-text index needs a row number that VACUUM keeps.

What happens when a row goes (ON DELETE):

- a user's rows go with the user;
- an exchange takes its feedback along, and feedback the memories that it made: forgetting errs towards forgetting;
- what only *names* another row keeps the name and has no foreign key: an exchange's memories and adapter version, and
  the feedback that a version was trained on. A version must still say that it saw a row after the row is gone, or it
  could not be withdrawn for it;
- a run that made a version, and a version that is another's parent, cannot be deleted before it: lineage has no holes.

A migration that has shipped is never edited: a change is a new one at the end. What is left out: migrating down.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from sqlite_utils import Database

from familiar.memory.errors import BadFile

TABLE = "familiar_migrations"
"""Where the applied migrations are recorded; a database that has tables, but not this one, is not ours."""


@dataclass(frozen=True)
class Migration:
    """One step of the schema. Each statement of ``sql`` starts on its own line; ``:now`` is the time in seconds."""

    number: int
    name: str
    sql: str


_FIRST = """
CREATE TABLE users ( -- the people whose model this is
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at_s REAL NOT NULL
);
INSERT INTO users (id, name, created_at_s) VALUES (1, 'me', :now);

CREATE TABLE api_keys ( -- how a request says whose it is; the key itself is shown once, when it is made, and not kept
    sha256 TEXT PRIMARY KEY, -- of the whole key, in hexadecimal
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    prefix TEXT NOT NULL, -- its first characters, by which a person knows it again
    last_used_at_s REAL -- to the minute; NULL: never
) WITHOUT ROWID;
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at_s);

CREATE TABLE user_ids ( -- one row; a removed user's id is never given again, as files and caches are named by it
    last INTEGER NOT NULL -- the highest id that was ever given
);
INSERT INTO user_ids SELECT max(id) FROM users;

CREATE TABLE conversations ( -- requests whose history goes on from one another
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- conv-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL
);
CREATE INDEX conversations_by_user ON conversations (user_id, created_at_s, seq);

CREATE TABLE exchanges ( -- one request and its reply, as served
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- the OpenAI completion id, chatcmpl-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    conversation_id TEXT REFERENCES conversations(id) ON DELETE SET NULL,
    history_sha256 TEXT NOT NULL, -- of what the user said in the conversation so far, by which a later request finds it
    model TEXT NOT NULL, -- the model id that was asked for
    messages_json TEXT NOT NULL CHECK (json_valid(messages_json)), -- as the client sent them, no memories added
    completion TEXT NOT NULL, -- the reply as served
    adapter_version INTEGER, -- the version that answered; NULL: the base model alone
    sampling_json TEXT NOT NULL CHECK (json_valid(sampling_json)), -- temperature, seed and the like
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, -- as OpenAI names them: stop, length, ...
    duration_ms REAL NOT NULL -- from request to last token
);
CREATE INDEX exchanges_by_user ON exchanges (user_id, created_at_s, seq);
CREATE INDEX exchanges_by_history ON exchanges (user_id, history_sha256, seq);
CREATE INDEX exchanges_by_conversation ON exchanges (conversation_id, seq);

CREATE TABLE exchange_memories ( -- which memories applied to an exchange: put into its prompt, or learnt
    exchange_id TEXT NOT NULL REFERENCES exchanges(id) ON DELETE CASCADE,
    position INTEGER NOT NULL, -- 0 is shown first
    memory_id TEXT NOT NULL, -- no foreign key: the record outlives the memory
    reason TEXT NOT NULL, -- why it was shown: always, pinned, ...; learnt: it was not, the adapter follows it untold
    score REAL, -- how well it matched the request, 0 to 1; NULL where nothing was compared
    PRIMARY KEY (exchange_id, position)
) WITHOUT ROWID;
CREATE INDEX exchange_memories_by_memory ON exchange_memories (memory_id);

CREATE TABLE feedback ( -- what the user said about an exchange, or in general
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- fb-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('correction', 'rating', 'preference', 'rule', 'regeneration', 'rebuttal')),
    exchange_id TEXT REFERENCES exchanges(id) ON DELETE CASCADE, -- NULL: about no exchange, a stated rule
    text TEXT, -- the corrected or preferred reply, the rule, or what a rebuttal asks for
    rating INTEGER CHECK (rating IN (-1, 1)),
    note TEXT, -- the rule stated beside the text
    source TEXT NOT NULL, -- which door it came through: api, cli, history, inbox, ...
    trust TEXT NOT NULL CHECK (trust IN ('stated', 'inferred', 'untrusted')),
    state TEXT NOT NULL CHECK (state IN ('active', 'pending', 'dismissed')), -- pending: a guess, until it is confirmed
    key TEXT, -- names the deed that it was read from; NULL: said directly
    UNIQUE (user_id, key)
);
CREATE INDEX feedback_by_user ON feedback (user_id, created_at_s, seq);
CREATE INDEX feedback_by_exchange ON feedback (exchange_id);

CREATE TABLE memories ( -- what is shown to the model again
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- mem-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL, -- when it was last stated
    kind TEXT NOT NULL CHECK (kind IN ('rule', 'fact', 'example')),
    text TEXT NOT NULL, -- the rule, the fact, or the reply that was wanted
    prompt TEXT, -- an example's user message; NULL for a rule or a fact
    feedback_id TEXT REFERENCES feedback(id) ON DELETE CASCADE, -- what last stated it
    scope TEXT NOT NULL CHECK (scope IN ('always', 'related', 'conversation')), -- which requests it applies to
    conversation_id TEXT REFERENCES conversations(id) ON DELETE CASCADE, -- where it was said, and applies if so scoped
    pinned INTEGER NOT NULL CHECK (pinned IN (0, 1)), -- shown first, and never evicted
    source TEXT NOT NULL, -- which door it came through: api, cli, history, inbox, ...
    state TEXT NOT NULL CHECK (state IN ('active', 'superseded', 'evicted')), -- only active ones are recalled
    superseded_by TEXT, -- the id of the memory that contradicts it; no foreign key: either may be forgotten
    ended_at_s REAL, -- when it stopped being active
    uses INTEGER NOT NULL, -- how often it applied to a reply: was put into its prompt, or learnt
    last_used_at_s REAL, -- NULL: never
    content_sha256 TEXT NOT NULL, -- of what it says, spelt alike: the same thing said again is the same memory
    UNIQUE (user_id, content_sha256)
);
CREATE INDEX memories_by_user ON memories (user_id, state, kind, created_at_s, seq);
CREATE INDEX memories_by_feedback ON memories (feedback_id);
CREATE INDEX memories_by_successor ON memories (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX memories_standing ON memories (user_id, created_at_s) -- those that are shown whatever is asked
    WHERE state = 'active' AND (scope <> 'related' OR pinned);

CREATE TABLE memory_vectors ( -- what the memories mean, for search
    memory_seq INTEGER PRIMARY KEY REFERENCES memories(seq) ON DELETE CASCADE,
    embedder TEXT NOT NULL, -- the embedding model's name and hash: vectors of another one say nothing
    vector BLOB NOT NULL, -- float16, little-endian, of length 1
    background REAL NOT NULL -- how alike it is to the requests that are most like it of many on all sorts of things
);

CREATE TABLE background_vectors ( -- what many everyday requests mean, computed once for each embedding model
    embedder TEXT PRIMARY KEY,
    texts_sha256 TEXT NOT NULL, -- of the requests: other ones are other vectors
    vectors BLOB NOT NULL -- float16, little-endian, one after the other
) WITHOUT ROWID;

CREATE TABLE memory_changes ( -- one row a user: counts up when a memory or its vector is added, changed or deleted
    user_id INTEGER PRIMARY KEY REFERENCES users(id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    removals INTEGER NOT NULL -- counts up when a memory stops being active, loses its vector or changes conversation
);
CREATE TRIGGER users_ai AFTER INSERT ON users BEGIN
    INSERT INTO memory_changes (user_id, revision, removals) VALUES (new.id, 0, 0);
END;
INSERT INTO memory_changes (user_id, revision, removals) SELECT id, 0, 0 FROM users;

CREATE VIRTUAL TABLE memories_fts USING fts5( -- words of the memories, stemmed, accents dropped
    text, prompt, content="memories", content_rowid='seq', tokenize='porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER memories_ai AFTER INSERT ON memories BEGIN
    INSERT INTO memories_fts (rowid, text, prompt) VALUES (new.seq, new.text, new.prompt);
    UPDATE memory_changes SET revision = revision + 1 WHERE user_id = new.user_id;
END;
CREATE TRIGGER memories_ad AFTER DELETE ON memories BEGIN
    INSERT INTO memories_fts (memories_fts, rowid, text, prompt) VALUES ('delete', old.seq, old.text, old.prompt);
    UPDATE memory_changes SET revision = revision + 1, removals = removals + 1 WHERE user_id = old.user_id;
END;
CREATE TRIGGER memories_au AFTER UPDATE OF text, prompt ON memories BEGIN
    INSERT INTO memories_fts (memories_fts, rowid, text, prompt) VALUES ('delete', old.seq, old.text, old.prompt);
    INSERT INTO memories_fts (rowid, text, prompt) VALUES (new.seq, new.text, new.prompt);
    DELETE FROM memory_vectors WHERE memory_seq = old.seq;
    UPDATE memory_changes SET revision = revision + 1, removals = removals + 1 WHERE user_id = new.user_id;
END;
CREATE TRIGGER memories_state AFTER UPDATE OF state, conversation_id ON memories
WHEN old.state <> new.state OR old.conversation_id IS NOT new.conversation_id BEGIN
    UPDATE memory_changes SET revision = revision + 1, removals = removals + 1 WHERE user_id = new.user_id;
END;
CREATE TRIGGER memory_vectors_ai AFTER INSERT ON memory_vectors BEGIN
    UPDATE memory_changes SET revision = revision + 1
    WHERE user_id = (SELECT user_id FROM memories WHERE seq = new.memory_seq);
END;

CREATE TABLE graders ( -- checks of a reply that a user attached to a rule, in OpenAI's form
    id TEXT PRIMARY KEY, -- grader-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    name TEXT NOT NULL,
    definition_json TEXT NOT NULL CHECK (json_valid(definition_json)),
    memory_id TEXT REFERENCES memories(id) ON DELETE CASCADE -- the rule that it checks; NULL: none
) WITHOUT ROWID;
CREATE INDEX graders_by_memory ON graders (memory_id);

CREATE TABLE probes ( -- whether a memory was followed when its model was asked: with it shown, and without
    seq INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    memory_id TEXT NOT NULL REFERENCES memories(id) ON DELETE CASCADE,
    adapter_version INTEGER, -- the version that answered; NULL: the base model alone
    shown INTEGER NOT NULL CHECK (shown IN (0, 1)), -- whether the memory was in the prompt
    prompt TEXT NOT NULL,
    completion TEXT NOT NULL,
    followed REAL NOT NULL -- 0 to 1
);
CREATE INDEX probes_by_memory ON probes (memory_id, seq);

CREATE TABLE learning_runs ( -- every run of the learner, also those that failed
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- run-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'promoted', 'rejected', 'failed', 'stopped')),
    config_json TEXT NOT NULL CHECK (json_valid(config_json)), -- the recipe
    fingerprint TEXT NOT NULL, -- of recipe, data and base: equal ones may resume each other
    pid INTEGER, -- the learner's process while it runs
    ended_at_s REAL,
    version INTEGER, -- the adapter version that it made
    error TEXT, -- one line, when it failed
    report_json TEXT CHECK (report_json IS NULL OR json_valid(report_json)) -- the gate's figures
);
CREATE INDEX learning_runs_by_user ON learning_runs (user_id, created_at_s, seq);

CREATE TABLE adapter_versions ( -- every adapter that passed the gate, and where it came from
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),
    created_at_s REAL NOT NULL,
    folder TEXT NOT NULL, -- relative to the data folder
    parent INTEGER, -- the version that it was judged against; NULL: the base model
    base_sha256 TEXT NOT NULL, -- of the base model's GGUF
    gguf_sha256 TEXT NOT NULL, -- of adapter.gguf
    run_id TEXT NOT NULL REFERENCES learning_runs(id),
    report_json TEXT NOT NULL CHECK (json_valid(report_json)), -- the gate's figures
    PRIMARY KEY (user_id, number),
    FOREIGN KEY (user_id, parent) REFERENCES adapter_versions(user_id, number)
) WITHOUT ROWID;
CREATE INDEX adapter_versions_by_run ON adapter_versions (run_id);

CREATE TABLE adapter_version_feedback ( -- what a version was taught
    user_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    feedback_id TEXT NOT NULL, -- or a rule's or fact's own, mem-...; no foreign key: lineage outlives them
    PRIMARY KEY (user_id, number, position),
    FOREIGN KEY (user_id, number) REFERENCES adapter_versions(user_id, number) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX adapter_version_feedback_by_feedback ON adapter_version_feedback (feedback_id);

CREATE TABLE consolidated_memories ( -- what a version was measured to follow untold, which its prompts leave out
    user_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    memory_id TEXT NOT NULL REFERENCES memories(id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, number, memory_id),
    FOREIGN KEY (user_id, number) REFERENCES adapter_versions(user_id, number) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX consolidated_memories_by_memory ON consolidated_memories (memory_id);
CREATE TRIGGER memories_anew AFTER UPDATE OF created_at_s, prompt, state ON memories BEGIN
    -- Said again, edited, pinned or restored: it is to be told again. Every one of these writes created_at_s.
    DELETE FROM consolidated_memories WHERE memory_id = new.id;
END;

CREATE TABLE current_versions ( -- the version that is served; no row: the base model
    user_id INTEGER PRIMARY KEY REFERENCES users(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    FOREIGN KEY (user_id, number) REFERENCES adapter_versions(user_id, number) ON DELETE CASCADE
);

CREATE TABLE logp_cache ( -- reference log-probabilities, computed once with the adapter off
    base_sha256 TEXT NOT NULL, -- of the base model's GGUF
    key TEXT NOT NULL, -- a hash of prompt and completion
    logp_nats REAL NOT NULL, -- summed over the completion's tokens
    PRIMARY KEY (base_sha256, key)
) WITHOUT ROWID;

CREATE TABLE files ( -- what was uploaded for fine-tuning, and its results; the bytes are in the data folder
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- file-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    filename TEXT NOT NULL, -- its owner's name for it
    purpose TEXT NOT NULL CHECK (purpose IN ('fine-tune', 'fine-tune-results'))
);
CREATE INDEX files_by_user ON files (user_id, created_at_s, seq);

CREATE TABLE fine_tuning_jobs ( -- fine-tuning that was asked for with data of its own, apart from memory and feedback
    seq INTEGER PRIMARY KEY, -- jobs run in this order, one at a time over all users
    id TEXT NOT NULL UNIQUE, -- ftjob-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    model TEXT NOT NULL, -- as it was asked for
    base_sha256 TEXT NOT NULL, -- of the base model's GGUF
    name TEXT NOT NULL, -- of the model that it makes, ft:...
    training_file TEXT NOT NULL, -- no foreign key: files may be deleted before their jobs
    validation_file TEXT,
    suffix TEXT,
    seed INTEGER NOT NULL,
    method_json TEXT NOT NULL CHECK (json_valid(method_json)), -- as OpenAI's API has it; "auto" until files are read
    metadata_json TEXT CHECK (metadata_json IS NULL OR json_valid(metadata_json)),
    finished_at_s REAL,
    estimated_finish_s REAL, -- while it runs
    fine_tuned_model TEXT, -- the name, once the model is there
    trained_tokens INTEGER,
    result_file TEXT,
    error_json TEXT CHECK (error_json IS NULL OR json_valid(error_json)) -- code, message and param, when it failed
);
CREATE INDEX fine_tuning_jobs_by_user ON fine_tuning_jobs (user_id, seq);
CREATE INDEX fine_tuning_jobs_to_do ON fine_tuning_jobs (seq)
    WHERE state IN ('validating_files', 'queued', 'running');

CREATE TABLE fine_tuning_events ( -- what happened to a job, step by step
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- ftevent-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    job_id TEXT NOT NULL REFERENCES fine_tuning_jobs(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('info', 'warn', 'error')),
    type TEXT NOT NULL CHECK (type IN ('message', 'metrics')),
    message TEXT NOT NULL,
    data_json TEXT NOT NULL CHECK (json_valid(data_json)) -- of metrics: the step and its figures
);
CREATE INDEX fine_tuning_events_by_job ON fine_tuning_events (job_id, seq);

CREATE TABLE fine_tuning_checkpoints ( -- the models that a job made on its way
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- ftckpt-...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    job_id TEXT NOT NULL REFERENCES fine_tuning_jobs(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    step INTEGER NOT NULL,
    model TEXT NOT NULL, -- its name, ft:...:ckpt-step-N; no foreign key: the model may be deleted
    metrics_json TEXT NOT NULL CHECK (json_valid(metrics_json)),
    UNIQUE (job_id, step)
);

CREATE TABLE fine_tuned_models ( -- the models of jobs that are served; a checkpoint's and the finished one share files
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, -- the model's name, ft:...
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    job_id TEXT NOT NULL REFERENCES fine_tuning_jobs(id) ON DELETE CASCADE,
    created_at_s REAL NOT NULL,
    step INTEGER NOT NULL, -- after which its weights are; its folder is named by job and step
    base_sha256 TEXT NOT NULL, -- of the base model's GGUF
    gguf_sha256 TEXT NOT NULL -- of adapter.gguf
);
CREATE INDEX fine_tuned_models_by_user ON fine_tuned_models (user_id, seq);

CREATE VIEW corrections AS -- each correction beside what it corrects
SELECT f.id AS feedback_id, f.user_id, f.created_at_s, e.id AS exchange_id, e.model, e.adapter_version,
    (SELECT json_extract(turn.value, '$.content') FROM json_each(e.messages_json) AS turn
        WHERE json_extract(turn.value, '$.role') = 'user' ORDER BY turn.key DESC LIMIT 1) AS prompt,
    e.completion AS original, f.text AS corrected, f.note, f.source, f.trust
FROM feedback AS f JOIN exchanges AS e ON e.id = f.exchange_id
WHERE f.kind = 'correction' AND f.state = 'active';

CREATE VIEW memory_use AS -- each memory, where it came from, and how often it was put into a prompt
SELECT m.id AS memory_id, m.user_id, u.name AS user, m.kind, m.scope, m.state, m.pinned, m.prompt, m.text,
    m.created_at_s, m.source, f.kind AS from_feedback, f.exchange_id AS from_exchange, m.uses, m.last_used_at_s,
    m.superseded_by
FROM memories AS m JOIN users AS u ON u.id = m.user_id LEFT JOIN feedback AS f ON f.id = m.feedback_id;

CREATE VIEW pending AS -- what was guessed from what the user did, waiting for a yes or a no
SELECT f.id AS feedback_id, f.user_id, f.created_at_s, f.kind, f.text, f.source, f.exchange_id, e.completion
FROM feedback AS f LEFT JOIN exchanges AS e ON e.id = f.exchange_id
WHERE f.state = 'pending';

CREATE VIEW versions AS -- each adapter version with its run, and whether it is the one served
SELECT v.user_id, v.number, v.created_at_s, v.parent, v.folder, v.run_id, r.state AS run_state,
    r.ended_at_s - r.created_at_s AS run_duration_s,
    (SELECT count(*) FROM adapter_version_feedback AS f
        WHERE f.user_id = v.user_id AND f.number = v.number) AS feedback_count,
    EXISTS (SELECT 1 FROM current_versions AS c WHERE c.user_id = v.user_id AND c.number = v.number) AS is_current
FROM adapter_versions AS v JOIN learning_runs AS r ON r.id = v.run_id;
"""

MIGRATIONS: tuple[Migration, ...] = (Migration(1, "first", _FIRST),)
"""Append only. Numbers count up from 1."""


def apply(db: Database, now: float, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the database up to date, each migration and its record in one transaction.

    ``now`` is the time in seconds since the epoch. Several processes may do this at once: each migration is applied
    by one of them. Raises ``BadFile`` when the database is another program's, or of a newer version of this one.
    """
    tables = set(db.table_names())
    if tables and TABLE not in tables:
        raise BadFile("The database belongs to another program: choose another file or data folder.")
    applied = _applied(db) if tables else set()
    if applied and max(applied) > migrations[-1].number:
        raise BadFile(
            f"The database has schema {max(applied)} but this version knows up to {migrations[-1].number}: "
            "update familiar-llm."
        )
    for migration in migrations:
        if migration.number not in applied:
            _apply_one(db, migration, now)


def _applied(db: Database) -> set[int]:
    return {row[0] for row in db.execute(f"SELECT number FROM {TABLE}").fetchall()}


def _apply_one(db: Database, migration: Migration, now: float) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} "
            "(number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at_s REAL NOT NULL)"
        )
        # Asked again now that the write lock is held: another process may have been first.
        if migration.number not in _applied(db):
            for statement in _statements(migration.sql):
                db.execute(statement, {"now": now})
            db.execute(f"INSERT INTO {TABLE} VALUES (?, ?, ?)", (migration.number, migration.name, now))
        db.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.execute("ROLLBACK")
        raise


def _statements(sql: str) -> Iterator[str]:
    # sqlite3's executescript commits first, which would part a migration from its record.
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if statement.strip() and sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise ValueError(f"The migration ends within a statement: {statement.strip()[:80]}")
