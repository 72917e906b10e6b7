"""Data that comes with the package: the MNIST test set, and the way to MNIST's training set."""
