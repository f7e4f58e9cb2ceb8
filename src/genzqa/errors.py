"""Everything this package raises on purpose.

    GenzqaError                     catch this to catch them all
    ├── InputError                  one input cannot be scored; the others still are
    │   ├── InputNotFoundError      no such file                                     code "not_found"
    │   ├── InputUnreadableError    a directory, no permission, an I/O error         code "unreadable"
    │   ├── UnsupportedFormatError  not one of the formats we read                   code "unsupported_format"
    │   ├── CorruptInputError       empty, truncated, or damaged                     code "corrupt"
    │   ├── InputTooLargeError      over a limit of `genzqa.Limits`                  code "too_large"
    │   ├── InputTimeoutError       reading took longer than `genzqa.Limits` allows  code "timeout"
    │   └── DecoderCrashedError     the process that decoded it died                 code "decoder_crashed"
    ├── ModelError                  a base or adapter cannot be had, or cannot score
    │   ├── ModelNotFoundError      no such file, folder, name or repository         code "model_not_found"
    │   ├── ModelCorruptError       weights or config missing, damaged, mismatched   code "model_corrupt"
    │   ├── NotTrainedError         a base without a trained adapter was asked for a score  code "not_trained"
    │   └── OfflineError            a download is needed but `offline` forbids it    code "offline"
    ├── DataError                   a database of human scores is not as it should be   code "data"
    ├── TrainingError               a training cannot go on                          code "training"
    ├── ConfigError                 a setting or name is malformed                   code "config"
    ├── OutputError                 a result cannot be written                       code "output"
    └── RequestError                a request to the service is refused; the kinds are in genzqa.service.refusals

Every error says what happened (`reason`) and what to do about it (`hint`); `code` is stable across versions.
"""

from __future__ import annotations

from typing import ClassVar


class GenzqaError(Exception):
    """Base of all errors of this package.

    Args:
        reason: One sentence, what is wrong, without the file's name.
        subject: The file, model name or setting it is about, if any.
        hint: What the user can do, as a sentence; empty when nothing sensible can be said.
    """

    code: ClassVar[str] = "error"

    def __init__(self, reason: str, *, subject: str = "", hint: str = "") -> None:
        self.reason, self.subject, self.hint = reason, subject, hint
        super().__init__(reason, subject, hint)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.reason}" if self.subject else self.reason
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.reason, self.subject, self.hint))

    def to_dict(self) -> dict[str, str]:
        """The error as it stands in a JSON record: ``code``, ``file``, ``reason``, ``hint``."""
        return {"code": self.code, "file": self.subject, "reason": self.reason, "hint": self.hint}


def _rebuild(kind: type[GenzqaError], reason: str, subject: str, hint: str) -> GenzqaError:
    """Errors cross process borders in batch scoring; keyword-only arguments need this to unpickle."""
    return kind(reason, subject=subject, hint=hint)


class InputError(GenzqaError):
    """One input cannot be scored; the other inputs are not affected."""

    code = "input"


class InputNotFoundError(InputError):
    """The path does not exist."""

    code = "not_found"


class InputUnreadableError(InputError):
    """The path is a directory, or reading it fails (permission, I/O)."""

    code = "unreadable"


class UnsupportedFormatError(InputError):
    """The content is not one of the supported formats, or an array has no shape we can read as a photo."""

    code = "unsupported_format"


class CorruptInputError(InputError):
    """The content is empty, truncated or damaged."""

    code = "corrupt"


class InputTooLargeError(InputError):
    """The input is over a limit (pixels, bytes, playing time)."""

    code = "too_large"


class InputTimeoutError(InputError):
    """Reading and decoding the input took longer than the limit allows."""

    code = "timeout"


class DecoderCrashedError(InputError):
    """The process that decoded the input died; batches and the service decode in processes that may."""

    code = "decoder_crashed"


class ModelError(GenzqaError):
    """A base or an adapter cannot be loaded, or cannot be used for what was asked."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No such local file or folder, registry name, or hub repository."""

    code = "model_not_found"


class ModelCorruptError(ModelError):
    """Weights or configuration are missing, damaged, of the wrong shape, or do not have the recorded checksum."""

    code = "model_corrupt"


class NotTrainedError(ModelError):
    """A base without trained parts was asked for a score; its number would mean nothing."""

    code = "not_trained"


class OfflineError(ModelError):
    """A download would be needed, and offline mode forbids it."""

    code = "offline"


class DataError(GenzqaError):
    """A database or table of human scores is missing, unreadable or mislabelled."""

    code = "data"


class TrainingError(GenzqaError):
    """A training cannot go on: a loss that is not finite, no memory left, a checkpoint of another training."""

    code = "training"


class ConfigError(GenzqaError):
    """A setting, a name or a configuration file is malformed."""

    code = "config"


class OutputError(GenzqaError):
    """A result file cannot be written."""

    code = "output"
