"""Models by name: what is fetched, made into a file once, and found again."""
