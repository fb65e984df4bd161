"""What a pass of a model is made of: operations on values, passes over them, and the tape that they become."""
