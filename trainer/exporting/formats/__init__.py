"""The formats of exported files; `trainer.exporting.registry` names them.

The module of each has `write(network, folder)` and `load(folder)`; that of what runs in
TensorFlow has `load_graph(folder)`, too, for tensors in place of arrays. It is imported
by the process that tries the written file, too, which has nothing of this package's
models and training: what these need is imported inside of `write`.
"""
