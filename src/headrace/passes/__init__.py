"""Graph → Graph passes, one to a file; `pipeline` lists them in the order in which they run."""
