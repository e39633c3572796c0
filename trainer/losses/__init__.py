"""Losses: `registry` names the terms, and each term is a file of its own."""
