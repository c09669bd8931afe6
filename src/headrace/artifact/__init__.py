"""Artifacts: the folder a model is compiled to, how it is built, checked, opened and run."""
