"""GGUF's keys, and config.json's for them, that rows of several architectures share."""

BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"}
SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
NO_WINDOW = {"use_sliding_window": False}
WINDOW = {"attention.sliding_window": "sliding_window"}
EXPERTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
LOCAL_EXPERTS = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
EXPERT_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}
SHARED_EXPERTS = EXPERTS | EXPERT_WIDTH | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
MULTIPLIERS = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
