"""Which machine of several this is: what TF_CONFIG says, read without TensorFlow."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from cyclegan_tf.errors import UserError

VARIABLE = "TF_CONFIG"


@dataclass(frozen=True)
class Cluster:
    """One worker's place among all.

    Attributes:
        workers: how many there are; 1 without TF_CONFIG.
        index: this one's number; 0 is the chief, which alone writes.
    """

    workers: int = 1
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this is the one worker that writes."""
        return self.index == 0

    @classmethod
    def from_environment(cls) -> Cluster:
        """This process's place by TF_CONFIG: {"cluster": {"worker": [...]}, "task": {...}}.

        A task of type "chief" is the first worker, as TensorFlow has it.

        Raises:
            UserError: if TF_CONFIG is set and is not that.
        """
        text = os.environ.get(VARIABLE)
        if not text:
            return cls()
        try:
            tree = json.loads(text)
            cluster, task = tree.get("cluster", {}), tree.get("task", {})
            hosts = {kind: _hosts(cluster.get(kind, [])) for kind in ("chief", "worker")}
            if not any(hosts.values()):
                return cls()
            kind, number = task["type"], task["index"]
            if number not in range(len(hosts[kind])):
                raise ValueError(f"no {kind} {number}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{VARIABLE}: must be JSON like {{'cluster': {{'worker': ['host:port', …]}}, "
                f"'task': {{'type': 'worker', 'index': 0}}}} ({error!r})"
            ) from None
        return cls(sum(map(len, hosts.values())), number + (kind == "worker") * len(hosts["chief"]))


def _hosts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(host, str) for host in value):
        raise ValueError("hosts must be a list of texts")
    return value
