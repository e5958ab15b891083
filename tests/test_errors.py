"""What a user sees of an error: one line and status 2."""

from __future__ import annotations

import pytest

from cyclegan_tf.errors import UserError, run_command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("--seed x: must be\n a number"), "error: --seed x: must be a number"),
        (
            PermissionError(13, "Permission denied", "/root/a"),
            "error: /root/a: cannot be read or written (Permission denied); name another",
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


@pytest.mark.parametrize("error", [RuntimeError("ours"), PermissionError(1, "of no file")])
def test_a_mistake_of_ours_is_not_hidden(error):
    def main(_argv):
        raise error

    with pytest.raises(type(error)):
        run_command(main)
