"""`ens export`: a blend with its networks as one file."""
