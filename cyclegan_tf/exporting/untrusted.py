"""SavedModels from elsewhere: refused before they are loaded if they could do more than ours.

A SavedModel is a program. TensorFlow runs no Python of it, but it has operations that read or write
files, or call Python that runs in the same process. So a model may hold what our exports hold, and
nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cyclegan_tf.errors import UserError

# Every operation of an export of ours, and those that TensorFlow may put in their place.
_ALLOWED = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Add AddV2 Any Assert BiasAdd Cast ClipByValue ConcatV2 Const Conv2D
        Conv2DBackpropInput DecodeImage DecodeRaw DepthToSpace DepthwiseConv2dNative EncodePng
        EnsureShape Equal ExpandDims ExtractJpegShape Fill FloorDiv FloorMod GatherV2 Greater
        GreaterEqual Identity IdentityN If Less LessEqual LogicalAnd LogicalNot LogicalOr MatMul
        Maximum Mean Minimum MirrorPad Mul Neg NoOp NotEqual Pack Pad PadV2 PartitionedCall
        Placeholder Prod Range ReadVariableOp RealDiv Relu Reshape ResizeNearestNeighbor
        ReverseV2 Round Rsqrt Select SelectV2 Shape Sigmoid Size Slice Split Sqrt Square
        SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessWhile
        StopGradient StridedSlice Sub Substr Sum Tanh TensorListFromTensor TensorListGetItem
        TensorListReserve TensorListSetItem TensorListStack Tile Transpose Unpack While
        ZerosLike
        """,
    )
)
# Every SavedModel has these two, which write and read its variables; nothing else in it names them.
_OF_VARIABLES = re.compile(r"__inference__traced_(save|restore)_\d+")


def refuse_foreign(path: Path) -> None:
    """Looks through a SavedModel without running anything of it.

    Args:
        path: The folder with its saved_model.pb.

    Raises:
        UserError: if a function that loading or translating could call holds an operation that no
            export of ours has, the model is in TensorFlow 1's format, or the file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = path / "saved_model.pb"
    try:
        model = SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    # Anything else is loaded as TensorFlow 1 would, which runs operations outside of functions.
    if [graph.HasField("object_graph_def") for graph in model.meta_graphs] != [True]:
        raise UserError(f"{file}: must be one graph in TensorFlow 2's format, as export writes it")
    for function, operation in _foreign_operations(model.meta_graphs[0]):
        raise UserError(
            f"{file}: refused, because its function {function[:80]} holds the operation "
            f"{operation[:80]}, which may reach beyond the model"
        )


def _foreign_operations(graph) -> Iterator[tuple[str, str]]:
    """(function, operation) wherever the graph could do what our exports do not."""
    functions = {one.signature.name: one for one in graph.graph_def.library.function}
    called = [one for name, one in functions.items() if not _OF_VARIABLES.fullmatch(name)]
    # The objects that are loaded name their methods, a function those that it calls.
    names = b" ".join(one.SerializeToString() for one in (graph.object_graph_def, *called))
    called += [one for name, one in functions.items() if name.encode() in names]
    for function in called:
        for node in function.node_def:
            if node.op not in _ALLOWED:
                yield function.signature.name, node.op
