"""Out-of-distribution detection: how unlike the training images an image is. Never imports torch."""
