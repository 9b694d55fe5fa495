"""`ens slices`: parts of the images in which accuracy is worse than elsewhere."""
