"""Decoders: from feature maps to logits at the size of the images.

`models.registry` names them. The module of each has a function `decode`. It takes the
feature maps, their strides and the number of classes, and by name `filters`,
`synchronized` and the decoder's options.
"""
