"""From photos to masks: what to read, what to write, and the way between."""
