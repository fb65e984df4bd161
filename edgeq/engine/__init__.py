"""A model in use: what it writes, says, scores and sees, for one caller or many."""
