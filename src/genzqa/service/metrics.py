"""What the service counts, for Prometheus; a registry of its own, so that several apps in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """All metrics of one app. Labels take few values: none holds anything that a client chose."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("genzqa_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram("genzqa_request_seconds", "From a request's head to the end of its answer.", ["route"],
                                 buckets=_SECONDS, registry=self.registry)  # fmt: skip
        self.files = Counter("genzqa_files", "Files by what became of them: ok, error, cancelled, failed.",
                             ["kind", "outcome"], registry=self.registry)  # fmt: skip
        self.waiting = Gauge("genzqa_files_waiting", "Accepted files that are not finished.", ["kind"],
                             registry=self.registry)  # fmt: skip
        self.batch_photos = Histogram("genzqa_batch_photos", "Photos scored in one call of the network.",
                                      buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry)  # fmt: skip
        self.upload_bytes = Counter("genzqa_upload_bytes", "Bytes of request bodies.", registry=self.registry)
        self.stored_bytes = Gauge("genzqa_stored_bytes", "Bytes of uploads on the disk.", registry=self.registry)
        self.worker_failures = Counter("genzqa_worker_failures", "Decoding or video processes that died or failed.",
                                       ["kind"], registry=self.registry)  # fmt: skip
        for kind in ("image", "video"):
            self.waiting.labels(kind).set(0)
            self.worker_failures.labels(kind)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
