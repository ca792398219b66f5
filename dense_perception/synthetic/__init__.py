"""Generated worlds that write corpora with exact ground truth."""
