"""GGUF in and out: importing and exporting whole models, and the cache of imported ones."""
