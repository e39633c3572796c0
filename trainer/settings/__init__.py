"""The settings of a run: one module a section, joined in `config`."""
