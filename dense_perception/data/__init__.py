"""What models are trained and judged on: the corpus format, targets, augmentation."""
