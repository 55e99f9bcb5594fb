"""The local service: HTTP API, engine, command line, and the learner's process."""
