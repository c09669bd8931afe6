"""Offline graph → step graph. docs/design/streaming.md describes the method and the step model."""
