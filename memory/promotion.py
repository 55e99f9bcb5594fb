"""The end of a learning run whose adapter passed: its version, what that follows untold, and the run's own record.

One transaction: a learner that is killed leaves all of them or none. A function over a ``Connection``; ``Store`` is its
face to the rest of the program. What is left out: the version's files, which are there before (``adapters.registry``).
"""

import json
from collections.abc import Sequence

from familiar.memory import consolidated, lineage
from familiar.memory.database import Connection
from familiar.memory.errors import LearningFailed
from familiar.memory.types import AdapterVersion, LearningRun, Memory

FORGOTTEN = "Something that this run was taught was forgotten meanwhile, so its adapter was not kept: learn again."

_GONE = """
SELECT 1 FROM json_each(?1) AS taught
WHERE NOT EXISTS (SELECT 1 FROM feedback AS f WHERE f.id = taught.value AND f.user_id = ?2 AND f.state = 'active')
AND NOT EXISTS (SELECT 1 FROM memories AS m WHERE m.id = taught.value AND m.user_id = ?2)
"""


def promote(connection: Connection, version: AdapterVersion, untold: Sequence[Memory], run: LearningRun) -> None:
    """See ``Store.promote``."""
    with connection.write():
        # Asked in the transaction: whatever is forgotten after it finds the version by its lineage, and names it.
        if connection.first(_GONE, (json.dumps(version.feedback_ids), version.user_id)) is not None:
            raise LearningFailed(FORGOTTEN)
        lineage.insert_version(connection, version, make_current=True)
        consolidated.keep(connection, version.user_id, version.number, untold)
        lineage.replace_run(connection, run)
