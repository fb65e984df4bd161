"""What all of edgeq may import: files, the environment, what other programs may change."""
