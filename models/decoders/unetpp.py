"""UNet++: a U-Net with a net of blocks in place of each skip."""

from collections.abc import Sequence

import keras

from models.decoders import blocks as blocks_lib


def decode(
    features: Sequence[keras.KerasTensor],
    strides: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int],
    norm: str = "batch",
    dropout: float = 0.0,
    synchronized: bool = False,
) -> keras.KerasTensor:
    """Decodes as UNet++ does (Zhou et al., DLMIA 2018, arXiv:1807.10165).

    The levels are the strides that the encoder has. At level i, 0 the finest, node
    x[i, 0] is the encoder's map, and those after it are

        x[i, j] = block(x[i, 0], ..., x[i, j - 1], enlarged x[i + 1, j - 1]),

    joined along the channels; a block is two 3x3 convolutions, each with norm and ReLU.
    Of x[0, last] the logits are made, and enlarged. The paper's deep supervision, by
    logits of the other x[0, j], is left out; features are enlarged bilinearly.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
      strides: of the maps, powers of 2.
      num_classes: channels of the logits.
      filters: channels of the nodes of each level but the deepest, deepest first.
      norm: `batch` or `group`.
      dropout: share of a node's features that a training step drops.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there are not as many filters as levels with nodes.
    """
    blocks = blocks_lib.Blocks(norm, dropout, synchronized)
    levels = sorted(set(strides))
    if len(filters) != len(levels) - 1:
        raise ValueError(
            f"{len(filters)} filters for {len(levels) - 1} levels with nodes, of the "
            f"strides {', '.join(map(str, levels[:-1]))}"
        )
    maps = [blocks_lib.at_stride(stride, features, strides) for stride in levels]
    first = [blocks_lib.join(m, name=f"level{i}_maps") for i, m in enumerate(maps)]
    nodes = [[] for _ in levels]  # Those after the first of each level.
    widths = filters[::-1]  # Finest first, as the levels.
    for j in range(1, len(levels)):
        for i in range(len(levels) - j):
            name = f"level{i}_node{j}"
            deeper = [first[i + 1], *nodes[i + 1]][j - 1]
            factor = levels[i + 1] // levels[i]
            deeper = blocks_lib.enlarge(deeper, factor, f"{name}_enlarge")
            # The maps by themselves: those of a frozen encoder need no gradient.
            made = blocks_lib.join([*nodes[i], deeper], name=f"{name}_join")
            parts = [*maps[i], made]
            node = blocks.convolve(parts, widths[i], name=f"{name}_first")
            node = blocks.convolve(node, widths[i], name=f"{name}_second", drops=True)
            nodes[i].append(node)
    return blocks_lib.make_logits([first[0], *nodes[0]][-1], levels[0], num_classes)
