"""Object stores and web addresses through fsspec: listing, facts, and bytes for the decoder."""

from __future__ import annotations

import datetime
import fnmatch
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genzqa.batch.item import Item
from genzqa.errors import ConfigError, InputNotFoundError, InputUnreadableError
from genzqa.limits import Limits
from genzqa.media.files import check_bytes
from genzqa.media.video_sniff import HEAD_BYTES, is_video_file

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CHUNK = 1 << 22
_PAGE = 1000  # objects that a store lists at a time; S3 gives no more
_MAGIC = re.compile(r"[*?[]")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # of this package, by the beginning of an address
_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "modified")  # as file systems of fsspec call it


def is_url(path: str) -> bool:
    """Whether ``path`` is an address such as ``s3://bucket/photo.jpg``."""
    return _URL.match(path) is not None


def list_remote(source: str, suffixes: Sequence[str], give_up: Callable[[str, OSError], object]) -> Iterator[Item]:
    """Photos and videos below an address, or those that a pattern matches, folder by folder in the order of their names.

    Args:
        source: A folder or bucket, a pattern, or one object.
        suffixes: Of files in folders, with their dot, lower case.
        give_up: Called with a folder that cannot be listed, and why.

    Raises:
        ConfigError: If fsspec has no file system for it.
    """
    try:
        files, path = _open(source)
        if _MAGIC.search(path):
            parts = path.split("/")
            first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
            yield from _matching(files, "/".join(parts[:first]), parts[first:], tuple(suffixes))
            return
        facts = _asked(files.info, path)
        if facts["type"] != "directory":
            yield _item(files, facts)
            return
        yield from _below(files, path, tuple(suffixes))
    except FileNotFoundError as error:
        raise ConfigError("no such object or folder", subject=source, hint="check the address") from error
    except OSError as error:
        give_up(source, error)


def stat_remote(address: str) -> Item:
    """Size and time of one object; one that cannot be asked has neither, and reading it says why."""
    try:
        files, path = _open(address)
        facts = _asked(files.info, path)
    except OSError:
        return Item(address)
    return Item(address, facts.get("size"), _modified(facts))


@contextmanager
def fetched(address: str, limits: Limits) -> Iterator[str | bytes]:
    """A photo's bytes, or the path of a private copy of a video that goes with the block.

    Raises:
        InputNotFoundError, InputUnreadableError: If it cannot be had.
        InputTooLargeError: If it is a photo over the limit of bytes, or a video over its own.
    """
    try:
        files, path = _open(address)
        with _asked(files.open, path, "rb") as file:
            head = _asked(file.read, HEAD_BYTES)
            if not is_video_file(head):
                data = head + _asked(file.read, limits.max_file_bytes + 1 - len(head))
                check_bytes(len(data), limits)
                yield data
                return
            with tempfile.NamedTemporaryFile(prefix="genzqa-", suffix=Path(path).suffix) as copy:
                copy.write(head)
                taken = len(head)
                while taken <= limits.max_video_bytes and (part := _asked(file.read, _CHUNK)):
                    taken += copy.write(part)
                copy.flush()
                yield copy.name
    except FileNotFoundError as error:
        raise InputNotFoundError("no such object", hint="check the address") from error
    except OSError as error:
        raise InputUnreadableError(f"cannot be fetched: {error.strerror or error}", hint="try again") from error


def sha256_of(item: Item) -> str | None:
    """Digest of an input's content, None if it cannot be read."""
    import hashlib

    try:
        if is_url(item.input):
            files, path = _open(item.input)
            with _asked(files.open, path, "rb") as file:
                return str(_asked(hashlib.file_digest, file, "sha256").hexdigest())
        if item.size is None or not Path(item.input).is_file():
            return None
        with Path(item.input).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _open(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        # Without fsspec's cache of listings: it would hold every name there is, and a second look would not see changes.
        files, path = _asked(fsspec.core.url_to_fs, address, use_listings_cache=False)
    except OSError as error:
        if not isinstance(error.__cause__, ImportError | ValueError):
            raise
        extra = _EXTRAS.get(address.partition("://")[0].lower())
        hint = f'install it with: pip install "genzqa[{extra}]"' if extra else "install fsspec's file system for it"
        raise ConfigError(f"cannot be opened: {error.__cause__}", subject=address, hint=hint) from error
    return files, str(path)


def _asked(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a file system of fsspec answers. Clients of object stores raise what they like when there are no credentials,
    say, or no server; that is an `OSError` to us.
    """
    try:
        return call(*arguments, **options)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _below(files: Any, folder: str, suffixes: tuple[str, ...]) -> Iterator[Item]:
    for facts in _children(files, folder):
        name = str(facts["name"])
        if _base(name).startswith("."):
            continue
        if facts["type"] == "directory":
            yield from _below(files, name, suffixes)
        elif name.lower().endswith(suffixes):
            yield _item(files, facts)


def _matching(files: Any, folder: str, parts: Sequence[str], suffixes: tuple[str, ...]) -> Iterator[Item]:
    """Objects below ``folder`` that match one part of a pattern each, as `Listing` does it with local files: ``**`` is any
    number of folders, and a folder that matches is searched to the bottom.
    """
    first, rest = parts[0], parts[1:]
    if first == "**" and rest:
        yield from _matching(files, folder, rest, suffixes)
    for facts in _children(files, folder):
        name, is_folder = str(facts["name"]), facts["type"] == "directory"
        if _base(name).startswith(".") and not first.startswith("."):
            continue
        if first == "**" and is_folder:
            yield from _matching(files, name, parts, suffixes)
        elif fnmatch.fnmatchcase(_base(name), first):
            if is_folder:
                yield from _matching(files, name, rest, suffixes) if rest else _below(files, name, suffixes)
            elif not rest:
                yield _item(files, facts)


def _children(files: Any, folder: str) -> Iterator[dict[str, Any]]:
    """What is in a folder, in the order of the names; without the empty object that some stores have in its place.

    A folder of a bucket may hold millions, and fsspec gives them all at once: S3 and Google Cloud Storage are asked page by page.
    """
    bucket, _, inside = folder.strip("/").partition("/")
    prefix = f"{inside}/" if inside else ""
    spoken = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
    if bucket and "s3" in spoken:
        pages = _s3_pages(files, bucket, prefix)
    elif bucket and "gs" in spoken:
        pages = _gs_pages(files, bucket, prefix)
    else:
        pages = iter([_asked(files.ls, folder, detail=True)])
    empty = True
    for page in pages:
        for facts in sorted(page, key=_name):
            if str(facts["name"]).rstrip("/") != folder.rstrip("/"):
                empty = False
                yield facts
    if empty:
        _asked(files.info, folder)  # is there such a folder?


def _s3_pages(files: Any, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
    more: dict[str, str] = {}
    while True:
        found = _asked(
            files.call_s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=_PAGE, **more
        )
        objects = [
            {**one, "name": f"{bucket}/{one['Key']}", "type": "file", "size": one["Size"]}
            for one in found.get("Contents", [])
        ]
        yield objects + _folders(bucket, [one["Prefix"] for one in found.get("CommonPrefixes", [])])
        if not found.get("IsTruncated"):
            return
        more = {"ContinuationToken": found["NextContinuationToken"]}


def _gs_pages(files: Any, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
    more: dict[str, str] = {}
    while True:
        found = _asked(
            files.call, "GET", "b/{}/o", bucket, delimiter="/", prefix=prefix, maxResults=_PAGE, json_out=True, **more
        )
        objects = [
            {**one, "name": f"{bucket}/{one['name']}", "type": "file", "size": int(one["size"])}
            for one in found.get("items", [])
        ]
        yield objects + _folders(bucket, found.get("prefixes", []))
        if not found.get("nextPageToken"):
            return
        more = {"pageToken": found["nextPageToken"]}


def _folders(bucket: str, prefixes: Sequence[str]) -> list[dict[str, Any]]:
    return [{"name": f"{bucket}/{prefix.rstrip('/')}", "type": "directory"} for prefix in prefixes]


def _name(facts: dict[str, Any]) -> str:
    return str(facts["name"])


def _base(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _item(files: Any, facts: dict[str, Any]) -> Item:
    return Item(str(files.unstrip_protocol(facts["name"])), facts.get("size"), _modified(facts))


def _modified(facts: dict[str, Any]) -> int | None:
    value = next((facts[name] for name in _MODIFIED if facts.get(name) is not None), None)
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime.datetime):
        value = value.timestamp()
    return None if value is None else round(float(value) * 1e9)
