"""Hugging Face checkpoints as named f32 rows, whatever file they lie in.

`safetensors_index` and `torch_index` say where each tensor's numbers are, `stored` reads rows of them, `folder` finds
the files of a checkpoint, `hub` fetches one, and `open_checkpoint` puts it together.
"""

from edgeq.checkpoints.checkpoint import Checkpoint, TensorRef, open_checkpoint

__all__ = ["Checkpoint", "TensorRef", "open_checkpoint"]
