"""Data: MNIST's test set, which is in the package, MNIST's training set, and ImageNet's class names."""
