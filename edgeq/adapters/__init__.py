"""LoRA adapters (arXiv:2106.09685): matrices of low rank that are added to those of a model, merged or at run time.

`asked` is how they are named, `peft` and `gguf_adapter` read one, `fitting` says to which of a model's matrices it
belongs; `adapter_set` is several of them for a run, `merging` adds them to a checkpoint.
"""
