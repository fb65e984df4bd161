"""Images for models that see: decoded, resized, cut into tiles, and encoded to rows that stand in a text for tokens."""
