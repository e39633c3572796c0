"""Reports on runs: pages of one file, made of what lies in the runs' folders."""
