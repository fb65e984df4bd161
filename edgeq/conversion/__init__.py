"""Models made of models: converted, calibrated, compared."""
