"""`ens distill`: one small network that learns from the finished members of a run, fold by fold."""
