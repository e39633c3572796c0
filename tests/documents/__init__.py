"""The pages of the documents: what is generated, and what is read from them."""
