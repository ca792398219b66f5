"""Mask2Former (Cheng 2022, arXiv:2112.01527): one architecture for the three segmentation tasks."""
