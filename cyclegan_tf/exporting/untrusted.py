"""SavedModels from elsewhere: refused before they are loaded if they would reach beyond numbers.

A SavedModel is a program. TensorFlow runs no Python of it, but it has operations that read or write
files, or call Python that runs in the same process.
"""

from __future__ import annotations

import re
from pathlib import Path

from cyclegan_tf.errors import UserError

# Operations on files and devices outside, and calls of Python.
_OUTSIDE = re.compile(
    r"(Eager)?PyFunc(Stateless)?|ReadFile|WriteFile|MatchingFiles|Print(V2)?"
    r"|(Save|Restore)(V2|Slices?)?|MergeV2Checkpoints|InitializeTableFromTextFile(V2)?"
    r"|\w*Reader(V2)?|\w*(Record|TextLine|Save|Load|Snapshot|Cache|Sql|Generator)Dataset(V\d)?"
    r"|\w*(Rpc|RemoteCall|Send|Recv|Summary\w*|Debug\w*)"
)
# Every SavedModel has these two for its variables; loading does not call them.
_OF_VARIABLES = re.compile(r"__inference__traced_(save|restore)_\d+")


def refuse_outside(path: Path) -> None:
    """Looks through the functions of a SavedModel without running any.

    Args:
        path: The folder with its saved_model.pb.

    Raises:
        UserError: if a function that loading or translating could call reaches outside, or the file
            is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = path / "saved_model.pb"
    try:
        model = SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    for graph in model.meta_graphs:
        for function in graph.graph_def.library.function:
            if _OF_VARIABLES.fullmatch(function.signature.name):
                continue
            for node in function.node_def:
                if _OUTSIDE.fullmatch(node.op) or _calls_saver(node):
                    raise UserError(
                        f"{file}: refused, because its function {function.signature.name[:80]} "
                        f"holds the operation {node.op}, which reaches beyond the model"
                    )


def _calls_saver(node) -> bool:
    """Whether a node calls one of the functions that read or write the variables' files."""
    functions = [value.func.name for value in node.attr.values()]
    functions += [one.name for value in node.attr.values() for one in value.list.func]
    return any(_OF_VARIABLES.fullmatch(name) for name in functions)
