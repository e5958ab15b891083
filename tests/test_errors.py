"""What a user sees of an error: one line and status 2."""

from __future__ import annotations

import errno
import os

import pytest

from cyclegan_tf.errors import UserError, first_line, run_command

ADVICE = "mend that or name another"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("--seed x: must be\n a number"), "error: --seed x: must be a number"),
        (
            PermissionError(13, "Permission denied", "/root/a"),
            f"error: /root/a: cannot be read or written (Permission denied); {ADVICE}",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", b"x"),
            f"error: x: cannot be read or written (File name too long); {ADVICE}",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/config.json"),
            f"error: runs/a/config.json: cannot be read or written (No space left on device); "
            f"{ADVICE}",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(error, line, capsys):
    def main(_argv):
        raise error

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("ours"),
        PermissionError(1, "of no file"),
        BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)),
        OSError(errno.EBADF, os.strerror(errno.EBADF), 7),
        OSError("of no number"),
        ModuleNotFoundError("ours", name="cyclegan_tf.reprot"),
        ModuleNotFoundError("ours", name="tfrecords_tools.biuld"),
        ModuleNotFoundError("of no name"),
    ],
)
def test_a_mistake_of_ours_is_not_hidden(error):
    def main(_argv):
        raise error

    with pytest.raises(type(error)):
        run_command(main)


def test_a_missing_package_is_one_line(capsys):
    def main(_argv):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    with pytest.raises(SystemExit, match="2"):
        run_command(main)
    assert "error: tensorflow is not installed for " in capsys.readouterr().err


def test_ctrl_c_is_one_word_and_status_130(capsys):
    def main(_argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: No such file\nmore", "a: No such file"),
        ("{{function_node f}} a: gone [Op:IteratorGetNext] name: ", "a: gone"),
        ("", "ValueError"),
    ],
)
def test_the_first_line_of_an_error_is_without_names_of_the_graph(text, line):
    assert first_line(ValueError(text)) == line
