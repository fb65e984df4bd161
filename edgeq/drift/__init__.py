"""Whether what a model reads is still what it was calibrated with: its file has an extract of that to compare with."""
