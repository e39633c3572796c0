"""Where the prepared examples of a split lie."""
