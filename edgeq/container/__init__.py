"""The `.eqf` file: one memory-mappable file with a JSON header, the tensors' panels and the tokenizer's files.

`layout` says where everything lies, `header` writes and checks the header, `writer` makes a file atomically and
`reader` maps one. `formats/container.md` is the contract.
"""
