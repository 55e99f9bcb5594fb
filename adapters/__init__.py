"""Training, judging, versioning and exporting a user's LoRA adapter."""
