"""Comparisons with other ways to train the same U-Net; run by hand, not by pytest."""
