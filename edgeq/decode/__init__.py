"""From logits to text: the steps that choose a token, and the strings that end a text. Knows no model."""
