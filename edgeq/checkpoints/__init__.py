"""Hugging Face checkpoints as named f32 rows, whatever file they lie in.

`safetensors_index` and `torch_index` say where each tensor's numbers are, `stored` and `files` read rows of them,
`folder` finds the files of a checkpoint, `hub` fetches one, and `open_checkpoint` puts it together. `quantized` is the
table of methods by which weights may be quantized already, one module each; to the layers above they are `packed`.
"""

from edgeq.checkpoints.checkpoint import Checkpoint, TensorRef, open_checkpoint

__all__ = ["Checkpoint", "TensorRef", "open_checkpoint"]
