"""Everything that can be set about the service, and its defaults."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from genzqa.limits import HOUR, Limits

MEBIBYTE = 1 << 20

SERVICE_LIMITS = Limits(max_file_bytes=128 * MEBIBYTE, max_video_bytes=512 * MEBIBYTE, max_video_seconds=2 * HOUR,
                        max_video_seconds_wall=60.0)  # fmt: skip
"""Of single files; tighter than on one's own machine, where nobody else waits."""

Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]


class ServiceSettings(BaseModel):
    """Bounds of the service; all of them hold at once.

    Attributes:
        limits: Of every single file.
        max_body_bytes: Bytes of one request, counted while they come.
        max_files: Files of one request.
        max_stored_bytes: Bytes of all uploads together that are on the disk at a time.
        queue_length: Photos that are received and not yet answered.
        video_queue_length: Videos likewise.
        max_connections: Open connections; one more is answered 503.
        batch_size: Photos that the network scores in one call.
        decoders: Processes that decode photos.
        upload_seconds: Time for a request's body to come.
        idle_seconds: Time without any byte of a request's head or body after which it is given up.
        request_seconds: Time from the last byte of a request to its answer.
        token: Bearer token that requests must bring; None for a service that is open to whoever reaches it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Limits = SERVICE_LIMITS
    max_body_bytes: Annotated[int, Field(ge=1024)] = 512 * MEBIBYTE
    max_files: Annotated[int, Field(ge=1, le=1000)] = 16
    max_stored_bytes: Annotated[int, Field(ge=1024)] = 4096 * MEBIBYTE
    queue_length: Annotated[int, Field(ge=1, le=100_000)] = 64
    video_queue_length: Annotated[int, Field(ge=1, le=100_000)] = 8
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 512
    batch_size: Annotated[int, Field(ge=1, le=256)] = 4
    decoders: Annotated[int, Field(ge=1, le=64)] = 2
    upload_seconds: Seconds = 300.0
    idle_seconds: Seconds = 20.0
    request_seconds: Seconds = 120.0
    token: SecretStr | None = None

    @field_validator("limits", mode="before")
    @classmethod
    def _limits_given_in_part(cls, value: object) -> object:
        """What a file does not name stays the service's, not that of one's own machine."""
        return dataclasses.asdict(SERVICE_LIMITS) | value if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _token_is_usable(self) -> ServiceSettings:
        if self.token is not None:
            text = self.token.get_secret_value()
            if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError("a token has 16 or more printable ASCII characters and no space")
        return self
