"""The typed experiment and its YAML files: one file per question."""
