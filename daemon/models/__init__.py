"""The built-in model file and its card."""
