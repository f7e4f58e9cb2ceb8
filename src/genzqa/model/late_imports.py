"""diffusers imported without what scoring never uses, so that nobody else in the process can tell.

To give out one model class, diffusers also imports torch's compiler, peft, transformers, scipy.stats and all its other models:
more than half of the time of `genzqa.load`. `import_diffusers` puts these off until somebody really uses them:

- A package of models does not run its ``__init__``; it does before anybody else imports from it or looks into it.
- A name that diffusers takes from peft, transformers or scipy is a stand-in, which imports the real one when it is used.
- The list of all that is installed, which costs more the more there is, is read when it is asked for.
- A mark for the compiler is written down, and made when the compiler is imported, before anybody can compile.

What comes late takes the place it would have had: the same module object, the real thing wherever the stand-in was. Only the
thread that imports puts anything off; to other threads, imports are what they always are.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

_COMPILER = "torch._dynamo"
_PACKAGES = frozenset(f"diffusers.models.{kind}" for kind in ("autoencoders", "transformers", "unets"))
_LIBRARIES = frozenset(("peft", "scipy", "transformers"))
_OFFLOADING = "diffusers.hooks.group_offloading"  # needs the compiler and, for its package, peft


def import_diffusers() -> None:
    """Import the classes a base is made of, quickly; does nothing where somebody has begun to import diffusers plainly."""
    if "diffusers" in sys.modules:
        return
    late = _LateImports()
    try:
        with late:
            from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: F401

            _scale_without_peft()
        _replace(_LATE_METADATA, importlib.metadata)
    except Exception:  # a release that needs more than this: start over, the plain way
        late.forget()
        for name in [name for name in sys.modules if _of_diffusers(name)]:
            del sys.modules[name]


class _LateImports(importlib.abc.MetaPathFinder):
    """What is put off, and the finder that notices when it is wanted after all.

    A context manager: within it, the thread that entered puts imports off.
    """

    def __init__(self) -> None:
        self._importer: int | None = None
        self._lock = threading.Lock()  # never held during an import, so it cannot take part in a deadlock
        self._packages: dict[str, _LatePackage] = {}
        self._marks: list[Any] | None = None if _COMPILER in sys.modules else []

    def __enter__(self) -> None:
        self._importer = threading.get_ident()
        self._plain_import = builtins.__import__
        sys.meta_path.insert(0, self)
        builtins.__import__ = self._import

    def __exit__(self, *_: object) -> None:
        self._importer = None
        if builtins.__import__ == self._import:  # else somebody put theirs on top of ours, which now only passes on
            builtins.__import__ = self._plain_import

    def forget(self) -> None:
        """Nothing was put off after all: the modules that wanted it are thrown away."""
        sys.meta_path.remove(self)
        self._marks = []

    @property
    def importing(self) -> bool:
        """Whether this thread puts imports off now."""
        return self._importer == threading.get_ident()

    # Names taken from other libraries

    def _import(self, name: str, globals: Mapping[str, Any] | None = None, locals: Mapping[str, Any] | None = None,
                fromlist: Sequence[str] | None = (), level: int = 0) -> Any:  # fmt: skip
        """``__import__``, with stand-ins for what a module of diffusers imports in its body (not in its functions)."""
        if self.importing and globals is not None and globals is locals and _of_diffusers(globals.get("__name__", "")):
            absolute = importlib.util.resolve_name("." * level + name, globals["__package__"]) if level else name
            if (stand_in := self._stand_in(absolute, fromlist or ())) is not None:
                return stand_in
        return self._plain_import(name, globals, locals, fromlist, level)

    def _stand_in(self, name: str, wanted: Sequence[str]) -> Any:
        if name == _COMPILER and tuple(wanted) == ("allow_in_graph",) and self._marks is not None:
            return SimpleNamespace(allow_in_graph=self._mark)
        library = name.partition(".")[0]
        if name == _OFFLOADING or library in _LIBRARIES:
            if wanted:
                return SimpleNamespace(**{each: _LateName(name, each) for each in wanted})
            return _LateLibrary(library)  # scipy imports its parts, scipy.stats, by itself when they are used
        if name == "importlib.metadata" and not wanted:
            return SimpleNamespace(metadata=_LATE_METADATA)  # what `import importlib.metadata as ...` takes from it
        return None

    # Marks for the compiler

    @cached_property
    def _mark(self) -> Callable[[Any], Any]:
        def allow_in_graph(function: Any) -> Any:
            with self._lock:
                if self._marks is not None:
                    self._marks.append(function)
                    return function
            return importlib.import_module(_COMPILER).allow_in_graph(function)

        return allow_in_graph

    def _make_marks(self, compiler: ModuleType) -> None:
        with self._lock:
            marks, self._marks = self._marks, None
        for function in marks or ():
            compiler.allow_in_graph(function)
        _replace(self._mark, compiler.allow_in_graph)

    # Packages, and the import of the compiler

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """How to put off a package, how to import it or the compiler late, and its modules once; None for all else."""
        if (package := self._packages.get(fullname)) is not None:
            loader: Callable[[Any], importlib.abc.Loader] = partial(_Arrival, package=package, arrived=self._arrived)
        elif fullname in _PACKAGES and self.importing:
            loader = partial(_PutOff, late=self)
        elif fullname == _COMPILER and self._marks is not None:
            loader = partial(_Arrival, package=None, arrived=self._make_marks)
        elif target is None and fullname.rpartition(".")[0] in _PACKAGES and fullname in sys.modules:
            return ModuleSpec(fullname, _There(sys.modules[fullname]))
        else:
            return None
        spec = self._plain_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = loader(spec.loader)
        return spec

    def _plain_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        return next((spec for spec in found if spec is not None), None)

    def put_off(self, package: _LatePackage) -> None:
        """Keep a package without running its ``__init__``."""
        self._packages[package.__name__] = package
        package.__late__ = _Late(self)

    def run(self, package: _LatePackage, state: _Late) -> None:
        """Import a package that was put off, by the import system: it knows how to lock, and what to do about failures."""
        with self._lock:
            if not state.begun:
                state.begun = True
                sys.modules.pop(package.__name__, None)
        importlib.import_module(package.__name__)

    def _arrived(self, package: ModuleType) -> None:
        del self._packages[package.__name__]
        package.__class__ = ModuleType
        del package.__late__


@dataclass
class _Late:
    """What is known of a package that was put off.

    Attributes:
        imports: Who put it off.
        begun: Whether anybody has begun to import it after all.
        runner: The thread that runs it now; to that thread it is a module like others.
    """

    imports: _LateImports
    begun: bool = False
    runner: int = 0


class _LatePackage(ModuleType):
    """A package whose ``__init__`` has not run yet; it does when somebody looks for what is not there.

    Its ``__path__`` is not there either: whoever imports a module of the package asks for it first, so that the package runs
    before its modules, as ever.
    """

    __late__: _Late | None = None

    def __getattr__(self, name: str) -> Any:
        state = self.__late__
        if state is None or state.runner == threading.get_ident():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name == "__path__" and state.imports.importing and self.__spec__ is not None:
            return self.__spec__.submodule_search_locations
        state.imports.run(self, state)
        return ModuleType.__getattribute__(self, name)

    def __dir__(self) -> list[str]:
        if self.__late__ is not None:
            self.__late__.imports.run(self, self.__late__)
        return list(ModuleType.__dir__(self))


class _PutOff(importlib.abc.Loader):
    """Makes a package without running it."""

    def __init__(self, plain: importlib.abc.Loader, late: _LateImports) -> None:
        self._plain, self._late = plain, late

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LatePackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, _LatePackage)
        _restore_loader(module, self._plain)
        del module.__path__
        self._late.put_off(module)


class _Arrival(importlib.abc.Loader):
    """Runs a module, the given one if it was put off, and then tells that it has arrived, before anybody can use it."""

    def __init__(
        self, plain: importlib.abc.Loader, package: _LatePackage | None, arrived: Callable[[ModuleType], None]
    ) -> None:
        self._plain, self._package, self._arrived = plain, package, arrived
        self._late = package.__late__ if package is not None else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if self._late is None:
            return self._plain.create_module(spec)
        self._late.runner = threading.get_ident()
        return self._package

    def exec_module(self, module: ModuleType) -> None:
        _restore_loader(module, self._plain)
        try:
            self._plain.exec_module(module)
        finally:
            if self._late is not None:
                self._late.runner = 0
        self._arrived(module)


class _There(importlib.abc.Loader):
    """Gives back a module of a package that ran, and imported it, when the import of that module asked for its path."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _LateName:
    """Stands for a class or function of a library in the modules of diffusers that ask for it; imports it when it is used."""

    def __init__(self, module: str, name: str) -> None:
        self._late_module, self._late_name = module, name

    def _late_import(self) -> Any:
        real = self._late_find()
        _replace(self, real)
        return real

    def _late_find(self) -> Any:
        return getattr(importlib.import_module(self._late_module), self._late_name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._late_import(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._late_import()(*args, **options)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._late_import())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._late_import())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._late_import(),)

    def __eq__(self, other: object) -> bool:
        return bool(self._late_import() == other)

    def __hash__(self) -> int:
        return hash(self._late_import())


class _LateLibrary(_LateName):
    """Stands for a whole library."""

    def __init__(self, module: str) -> None:
        super().__init__(module, "")

    def _late_find(self) -> ModuleType:
        return importlib.import_module(self._late_module)


class _LateDistributions(Mapping[str, list[str]]):
    """What `importlib.metadata.packages_distributions` gives, found out when somebody looks."""

    @cached_property
    def _found(self) -> Mapping[str, list[str]]:
        found = importlib.metadata.packages_distributions()
        _replace(self, found)
        return found

    def __getitem__(self, package: str) -> list[str]:
        return self._found[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class _LateMetadata:
    """`importlib.metadata` while diffusers is imported, which lists all that is installed for the sake of three rare packages."""

    packages_distributions = _LateDistributions

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.metadata, name)


_LATE_METADATA = _LateMetadata()


def _scale_without_peft() -> None:
    """Every pass of a UNet imports peft to scale its LoRA layers by 1: leave out the import where nothing is to be done."""
    from diffusers.utils import peft_utils

    for name in ("scale_lora_layers", "unscale_lora_layers"):
        plain = getattr(peft_utils, name)
        _replace(plain, _unless_one(plain))


def _unless_one(scale: Callable[..., None]) -> Callable[..., None]:
    @wraps(scale)
    def scale_unless_one(model: Any, *weight: Any, **options: Any) -> None:
        if options or weight != (1.0,):
            scale(model, *weight, **options)

    return scale_unless_one


def _of_diffusers(module: str) -> bool:
    return module.partition(".")[0] == "diffusers"


def _replace(stand_in: Any, real: Any) -> None:
    """Put the real thing wherever diffusers has the other one."""
    for module in [module for name, module in list(sys.modules.items()) if _of_diffusers(name)]:
        for name, value in list(vars(module).items()):
            if value is stand_in:
                vars(module)[name] = real


def _restore_loader(module: ModuleType, plain: importlib.abc.Loader) -> None:
    module.__loader__ = plain
    if module.__spec__ is not None:
        module.__spec__.loader = plain
