"""What the names of models' files end in."""

CHECKPOINT = (".safetensors", ".bin", ".pt", ".pth")  # a checkpoint's weights
MODEL = (".eqf", ".gguf", *CHECKPOINT)
