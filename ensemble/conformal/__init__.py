"""Prediction sets and abstention, from the cross-fitted probabilities of out-of-fold rows. Never imports torch."""
