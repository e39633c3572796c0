"""Folders that are not on this machine: a run or data at gs://, s3:// and others."""
