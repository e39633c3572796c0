"""Sources of labelled images: `registry` names the kinds, each a module of its own."""
