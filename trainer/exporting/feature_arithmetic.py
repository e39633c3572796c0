"""The operators of a `.tflite` file that add or multiply features.

In 8 bits a product multiplies the rounding of each factor with all of the other one.
Layer normalization suffers most: it multiplies by one over a deviation, and takes the
difference of two large products. A swish multiplies features with a bend of their own,
and squeeze-and-excitation with a weight of their channel. Sums are those of residual
blocks: what goes through many blocks is rounded anew by each of them.
"""

from collections.abc import Iterable, Sequence

from trainer.exporting import lite_layers


def find(content: bytes) -> list[str]:
    """Names what comes out of sums and products of features.

    So is what goes into a product, or is made of it, without a layer between.

    Args:
      content: of a `.tflite` file in float32.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    graph, codes = model.subgraphs[0], schema.BuiltinOperator
    makers = {
        index: number
        for number, operator in enumerate(graph.operators)
        for index in operator.outputs
    }
    before = [[makers[i] for i in o.inputs if i in makers] for o in graph.operators]
    after = [[] for _ in before]
    for number, earlier in enumerate(before):
        for other in earlier:
            after[other].append(number)
    sums, products, layers = set(), set(), set()
    kinds = lite_layers.list_kinds()
    for number, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        is_of_two = len(before[number]) == 2  # And not of one and a constant.
        if code in kinds:
            layers.add(number)
        elif code == codes.ADD and is_of_two:
            sums.add(number)
        elif code == codes.HARD_SWISH or (code == codes.MUL and is_of_two):
            products.add(number)
    around = _walk(products, before, layers) | _walk(products, after, layers)
    return [
        graph.tensors[index].name.decode()
        for number in sorted(sums | around)
        for index in graph.operators[number].outputs
    ]


def _walk(
    starts: Iterable[int], links: Sequence[Sequence[int]], ends: set[int]
) -> set[int]:
    """Returns the starts and all that links lead to from there, but for the ends."""
    found, left = set(), list(starts)
    while left:
        number = left.pop()
        if number not in found and number not in ends:
            found.add(number)
            left += links[number]
    return found
