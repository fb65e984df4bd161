"""Turns a checkpoint into a `.eqf` file: `recipes` chooses the type of each tensor, `pipeline` converts."""
