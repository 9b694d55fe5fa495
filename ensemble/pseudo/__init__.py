"""`ens pseudo`: self-training on images without a label (noisy student: Xie et al., CVPR 2020), without leaks.

The student of fold i learns from the labelled rows of the other folds, and from what the teachers' networks of fold i
say of the unlabelled images. None of these has seen a row of fold i, so the student's out-of-fold scores are as honest
as its teachers'. The teachers' answer is therefore the plain mean of their logits: the weights and temperatures of a
fitted blend were fitted on the rows of all folds, fold i's among them.
"""
