"""Reads what `ens export` wrote. Never imports torch, timm, scikit-learn or scipy."""
