"""The same app as a Ray Serve deployment: several replicas behind one address, each with its own model, queue and folder.

    GENZQA_MODEL=mini serve run genzqa.service.ray_app:deployment

Each replica loads the model once. Sizes of replicas and how many there are come from Ray's own configuration, or from
`deploy`.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from ray import serve

from genzqa.service.app import create_app
from genzqa.service.settings import ServiceSettings


def deploy(model: str = "mini", settings: ServiceSettings | None = None, *, replicas: int = 1, cpus: float = 1,
           offline: bool = False) -> Any:  # fmt: skip
    """An application for ``ray.serve.run``.

    Args:
        model: As for `genzqa.load`; each replica's machine must have it.
        settings: Of each replica; bounds hold for each on its own.
        replicas: How many.
        cpus: Of each, as Ray counts them.
        offline: Never open a network connection for a model.

    Example:
        >>> ray.serve.run(deploy("mini", replicas=4))    # doctest: +SKIP
    """
    bounds = settings or ServiceSettings()

    def build() -> FastAPI:
        return create_app(model, bounds, offline=offline)

    # Ray's own bound lies above ours, so that it is the service that says 429, with Retry-After
    held = bounds.queue_length + bounds.video_queue_length
    replica = serve.deployment(
        name="GenzQA",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=2 * held,
        graceful_shutdown_timeout_s=bounds.request_seconds + 10,
        health_check_period_s=10,
    )(serve.ingress(build)())
    return replica.bind()


def deployment(arguments: dict[str, str]) -> Any:
    """For ``serve run``: ``model``, ``replicas`` and ``cpus`` as arguments, the token from ``GENZQA_TOKEN``."""
    token = os.environ.get("GENZQA_TOKEN") or None
    settings = ServiceSettings.model_validate({"token": token})
    return deploy(arguments.get("model", "mini"), settings, replicas=int(arguments.get("replicas", "1")),
                  cpus=float(arguments.get("cpus", "1")))  # fmt: skip
