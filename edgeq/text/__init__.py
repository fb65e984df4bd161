"""Text in and out of token ids: tokenizers, the streaming detokenizer and chat templates. Knows no tensors."""
