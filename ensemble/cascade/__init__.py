"""`ens cascade`: a blend's cheapest members first, and no further one for an image that they are sure of. Never imports
torch, but where costs are measured.

The stages are blends of the first members (`order.py`), fitted as the whole one is; since each is calibrated, its
largest probability is the chance that it is right. An image exits at the first stage whose largest probability
reaches one threshold (early exit). The threshold, and the first stage at which any may exit, are chosen by log loss and
cost (`policy.py`) on rows whose stages were fitted without them, and scored on folds that had no part in either
(`find.py`).

At prediction every stage is asked of all K networks of its members, and their average decides. The threshold was fitted
on one network per member, as out-of-fold rows have no more: averages are less confident, so that somewhat more images
go on than the table says.
"""
