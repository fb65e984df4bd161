"""Which edgeq this is: what files say that they were made by. Below all, as the package itself stands above."""

VERSION = "0.1.0"
