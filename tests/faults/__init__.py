"""Runs that are killed, stopped and started again, as processes of their own."""
