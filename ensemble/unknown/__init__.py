"""`ens unknown`: what tells images that are none of the classes from the training images."""
