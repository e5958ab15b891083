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

# The operations of our exports, and those that TensorFlow may put in their place.
_CALLS = frozenset(
    ("If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While")
)
_NUMBERS = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Add AddV2 Any Assert BiasAdd Cast ClipByValue ConcatV2 Const Conv2D
        Conv2DBackpropInput DecodeImage DecodeRaw DepthToSpace DepthwiseConv2dNative EncodePng
        EnsureShape Equal ExpandDims ExtractJpegShape Fill FloorDiv FloorMod GatherV2 Greater
        GreaterEqual Identity IdentityN Less LessEqual LogicalAnd LogicalNot LogicalOr MatMul
        Maximum Mean Minimum MirrorPad Mul Neg NoOp NotEqual Pack Pad PadV2 Placeholder Prod Range
        ReadVariableOp RealDiv Relu Reshape ResizeBilinear ResizeNearestNeighbor ReverseV2 Round
        Rsqrt Select SelectV2 Shape Sigmoid Size Slice Split Sqrt Square SquaredDifference Squeeze
        StopGradient StridedSlice Sub Substr Sum Tanh TensorListFromTensor TensorListGetItem
        TensorListReserve TensorListSetItem TensorListStack Tile Transpose Unpack VarHandleOp
        ZerosLike
        """,
    )
)
# Every SavedModel has two functions that write and read its variables. They may hold these, as
# nothing else in the model can call them.
_OF_VARIABLES = re.compile(r"__inference__traced_(save|restore)_\d+")
_FILES = frozenset(
    re.findall(
        r"\w+",
        """
        AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename
        StaticRegexFullMatch StringJoin
        """,
    )
)


def refuse_foreign(path: Path) -> None:
    """Looks through a SavedModel without running anything of it.

    Args:
        path: The folder with its saved_model.pb.

    Raises:
        UserError: if it holds an operation that no export of ours has, or one where ours do not
            have it, is in TensorFlow 1's format, or is damaged.
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
            f"{file}: refused, because {function[:80]} holds the operation "
            f"{operation[:80]}, which may reach beyond the model"
        )


def _foreign_operations(graph) -> Iterator[tuple[str, str]]:
    """(function, operation) wherever the graph could do what our exports do not.

    Functions that nobody calls count as well: TensorFlow works out the constants in all of them.
    """
    library = graph.graph_def.library.function
    texts = [graph.object_graph_def.SerializeToString()]  # which names the objects' methods
    texts += [one.SerializeToString() for one in library]
    for number, function in enumerate(library, start=1):
        name, allowed = function.signature.name, _NUMBERS | _CALLS
        elsewhere = (text for place, text in enumerate(texts) if place != number)
        if _OF_VARIABLES.fullmatch(name) and not any(name.encode() in text for text in elsewhere):
            allowed = _NUMBERS | _FILES
        yield from ((name, node.op) for node in function.node_def if node.op not in allowed)
    for node in graph.graph_def.node:
        if node.op not in _NUMBERS | _CALLS:
            yield "outside of functions", node.op
