def search(weights, bt):
    raise NotImplementedError
