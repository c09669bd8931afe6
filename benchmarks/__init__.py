"""Measurements beside other runtimes; `make bench` writes docs/benchmarks.md."""
