"""Targets: instruction sets and their C, the machine's own facts, compilers and how to call them."""
