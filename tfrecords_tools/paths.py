"""Folders of shards that may be remote: gs:// and whatever else tf.io.gfile knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Union


class RemotePath:
    """The part of ``pathlib.Path`` that reading shards needs, for a URL.

    TensorFlow itself knows gs://; others only where a program has registered them with it, as
    importing the package tensorflow-io does for s3:// and hdfs://.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def __str__(self) -> str:
        return self._url

    def __fspath__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._url}/{name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self._url)

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self._url.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last part."""
        return self._url.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether there is a file; OSError if nobody can tell."""
        return self._call("exists") and not self._call("isdir")

    def is_symlink(self) -> bool:
        """Object stores have no links."""
        return False

    def stat(self) -> SimpleNamespace:
        """``st_size``, in bytes."""
        return SimpleNamespace(st_size=self._call("stat").length)

    def read_bytes(self) -> bytes:
        """The content; FileNotFoundError or another OSError if it cannot be had."""
        return self._call("GFile", "rb", use=lambda file: file.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content as text."""
        return self.read_bytes().decode(encoding)

    def _call(self, name: str, *arguments: object, use=lambda result: result):
        """A function of tf.io.gfile on this path, with its errors as Python's."""
        import tensorflow as tf

        try:
            return use(getattr(tf.io.gfile, name)(self._url, *arguments))
        except tf.errors.NotFoundError as error:
            raise FileNotFoundError(2, error.message, self._url) from None
        except tf.errors.OpError as error:
            raise OSError(5, error.message, self._url) from None


AnyPath = Union[Path, RemotePath]


def is_remote(text: str) -> bool:
    """Whether a path is a URL."""
    return "://" in text


def as_path(path: str | AnyPath) -> AnyPath:
    """A local path, or a remote one for a URL."""
    if isinstance(path, RemotePath):
        return path
    return RemotePath(path) if isinstance(path, str) and is_remote(path) else Path(path)
