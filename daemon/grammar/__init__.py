"""From a JSON schema to the grammar by which llama.cpp makes a reply follow it."""
