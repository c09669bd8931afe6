"""Headrace compiles neural networks to proven, tuned, dependency-free C."""
