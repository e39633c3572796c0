"""Where the prepared examples of a split lie, and what is counted of them."""
