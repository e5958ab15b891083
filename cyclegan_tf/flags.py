"""Command-line flags made from the settings of ``config.py``, with errors of one line."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, NoReturn

from cyclegan_tf.config import SECTIONS, WEIGHTS, Config, flag, section_settings, setting_type
from cyclegan_tf.errors import UserError
from cyclegan_tf.presets import ABOVE, PICKED, PRESETS, SUMMARIES, make_config

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises a one-line ``UserError`` instead of printing its usage."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def add_setting_flags(parser: argparse.ArgumentParser, default_preset: str) -> None:
    """Adds --preset and one flag per setting, grouped by section."""
    recipes = "; ".join(f"{name}: {text}" for name, text in SUMMARIES.items())
    parser.add_argument(
        "--preset",
        metavar="NAME",
        default=default_preset,
        help=f"the recipe that the other flags change ({recipes}) (default: {default_preset})",
    )
    for section in SECTIONS.values():
        first_line = (section.__doc__ or "").splitlines()[0].rstrip(".")
        group = parser.add_argument_group(first_line)
        for flat, field in section_settings(section):
            group.add_argument(flag(flat), **_flag_options(flat, field))


def add_weights_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --weights: one of ``WEIGHTS``, or None for the averages where the run keeps them."""
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="last: the newest checkpoint's; average: their running average; best: of the "
        "checkpoint that scored best while training, averaged where the run averages (default: "
        "average where the run keeps it, else last)",
    )


def config_from_flags(arguments: argparse.Namespace) -> Config:
    """The settings that the flags name: the preset's, with the given ones changed.

    Raises:
        UserError: for an unknown preset or a value that the checks refuse.
    """
    return make_config(arguments.preset, **given_settings(arguments))


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags, by flat name."""
    known = {flat for section in SECTIONS.values() for flat, _ in section_settings(section)}
    return {name: value for name, value in vars(arguments).items() if name in known}


def _flag_options(flat: str, field: dataclasses.Field) -> dict[str, Any]:
    kind, choices = setting_type(field), field.metadata["choices"]
    options: dict[str, Any] = {
        "dest": flat,
        "default": argparse.SUPPRESS,  # so that a preset's value stands unless the flag is given
        "metavar": "|".join(choices) if choices else kind.__name__.upper(),
        "type": _parse_bool(flat) if kind is bool else _parse_value(flat, kind),
        "help": f"{field.metadata['help']} (default: {_default_text(flat, field)})".replace(
            "%", "%%"
        ),
    }
    if kind is bool:
        options.update(nargs="?", const=True, metavar="true|false")
    return options


def _default_text(flat: str, field: dataclasses.Field) -> str:
    texts = [str(field.default)]
    for preset, values in PRESETS.items():
        if preset == "auto" and flat in (*PICKED, "steps"):  # it counts epochs
            texts += ["auto as picked"] if flat in PICKED else []
            continue
        value = values.get(flat, field.default)
        larger = {side: more[flat] for side, more in ABOVE.get(preset, {}).items() if flat in more}
        if larger or value != field.default:
            above = (f", above {side} px {changed}" for side, changed in larger.items())
            texts.append("".join([f"{preset} {value}", *above]))
    return "; ".join(texts)


def _parse_value(flat: str, kind: type):
    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            word = {int: "a whole number", float: "a number"}[kind]
            raise UserError(f"{flag(flat)} {text}: must be {word}") from None

    return parse


def _parse_bool(flat: str):
    def parse(text: str) -> bool:
        if text.lower() not in _TRUE + _FALSE:
            raise UserError(f"{flag(flat)} {text}: must be true or false")
        return text.lower() in _TRUE

    return parse
