"""The SQLite memory store: what was said, what was corrected, and what to recall."""
