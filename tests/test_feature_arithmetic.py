"""Sums and products of features are found, and what is around products."""

import pytest

from trainer.exporting import feature_arithmetic


def _make_file(operators):
    """Makes a file of operators, each a kind, its inputs and its output, by names."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    names = sorted(
        {name for _, inputs, output in operators for name in inputs + output}
    )
    kinds = sorted({kind for kind, _, _ in operators})
    graph = schema.SubGraphT()
    graph.tensors = [schema.TensorT() for _ in names]
    for tensor, name in zip(graph.tensors, names, strict=True):
        tensor.name = name
    graph.operators = [schema.OperatorT() for _ in operators]
    for written, (kind, inputs, output) in zip(graph.operators, operators, strict=True):
        written.opcodeIndex = kinds.index(kind)
        written.inputs = list(map(names.index, inputs))
        written.outputs = [names.index(output)]
    model = schema.ModelT()
    model.operatorCodes = [schema.OperatorCodeT() for _ in kinds]
    for code, kind in zip(model.operatorCodes, kinds, strict=True):
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
    model.subgraphs = [graph]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


# Small letters are features, and capitals are constants.
_NORMALIZED = [
    ("CONV_2D", "iW", "a"),
    ("MEAN", "aA", "b"),
    ("RSQRT", "b", "c"),
    ("MUL", "ac", "d"),
    ("ADD", "dB", "e"),
    ("MAX_POOL_2D", "a", "p"),  # Beside it.
    ("CONV_2D", "eV", "f"),
    ("RELU", "f", "g"),
]
_SCALED = [("CONV_2D", "iW", "a"), ("MUL", "aA", "b"), ("ADD", "bB", "c")]
_BENT = [
    ("DEPTHWISE_CONV_2D", "iW", "a"),
    ("ADD", "aA", "b"),
    ("FULLY_CONNECTED", "bV", "c"),
    ("HARD_SWISH", "c", "d"),
    ("ADD", "db", "e"),
    ("TRANSPOSE_CONV", "SUe", "f"),
]
_SQUARED = [("CONV_2D", "iW", "a"), ("MUL", "aa", "b")]
_RESIDUAL = [
    ("CONV_2D", "iW", "a"),
    ("RELU", "a", "b"),
    ("CONV_2D", "bV", "c"),
    ("ADD", "bc", "d"),
    ("CONCATENATION", "da", "e"),
]


@pytest.mark.parametrize(
    ("operators", "found"),
    [
        (_NORMALIZED, "bcde"),
        (_SCALED, ""),
        (_BENT, "de"),
        (_SQUARED, "b"),
        (_RESIDUAL, "d"),
    ],
    ids=["normalized", "scaled", "bent", "squared", "residual"],
)
def test_arithmetic_is_found(operators, found):
    assert feature_arithmetic.find(_make_file(operators)) == list(found)
