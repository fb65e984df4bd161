"""The HTTP server: one file per API. `engine.py` is its one door to a model; nothing else here computes."""
