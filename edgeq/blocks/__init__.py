"""Block types: the table of storage formats, and the NumPy reference that encodes and decodes them."""
