"""Frozen configuration records: typed options with a doc line, strict conversion from and to plain values.

`Config` is the base of every record, and `option(default, "doc")` declares a field.  The constructor checks types and
bounds, so that every source of a wrong value (Python, text, file) gives an error with the field's name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from temporal_zoo.errors import InvalidInput, warn_renamed


class ConfigError(InvalidInput):
    """A configuration value that cannot be used; the message names the field and the accepted values."""


def option(default: Any, doc: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a `Config`: its default, one line of documentation and, for numbers, its bounds (inclusive)."""
    facts = {"doc": doc, "least": least, "most": most}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=facts)
    return field(default=default, metadata=facts)


def nearest(word: str, words: Iterable[str]) -> str:
    """' (did you mean "x"?)' when some word is close to `word`, else an empty string."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configuration records; subclasses are frozen, keyword-only dataclasses."""

    # Option texts ("state=8:conv=2") of mixers.  The contract and the tests run them in addition to the defaults.
    examples: ClassVar[tuple[str, ...]] = ()
    # Names for sets of options, as texts: "flavour=vim" in a spec means these options, and is printed as them.
    flavours: ClassVar[dict[str, str]] = {}
    # Earlier names of options: {"earlier": "present"}.  Old texts and files still load, with a DeprecationWarning.
    renamed: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        for name, kind in hints(type(self)).items():
            spot = f"{type(self).__qualname__}.{name}"
            object.__setattr__(self, name, _checked(getattr(self, name), kind, spot))
            facts = type(self).__dataclass_fields__[name].metadata
            for number in _numbers(getattr(self, name)):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ConfigError(f"{spot} is {number}; it must be a finite number")
                if (least := facts.get("least")) is not None and number < least:
                    raise ConfigError(f"{spot} is {number}; it must be at least {least}")
                if (most := facts.get("most")) is not None and number > most:
                    raise ConfigError(f"{spot} is {number}; it must be at most {most}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values (numbers, strings, lists, dicts) for JSON; `from_dict` reads them."""
        return {name: _plain(getattr(self, name)) for name in hints(type(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads `to_dict`'s output; unknown names are refused, earlier names are replaced."""
        known = hints(cls)
        values = cls.with_present_names(values)
        for name in values:
            if name not in known:
                raise ConfigError(_unknown(cls, name, known))
        return cls(
            **{name: _parsed(value, known[name], f"{cls.__qualname__}.{name}") for name, value in values.items()}
        )

    @classmethod
    def with_present_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same values, with earlier names of options (`renamed`) replaced by the present ones."""
        present: dict[str, Any] = {}
        for name, value in values.items():
            if (now := cls.renamed.get(name, name)) != name:
                warn_renamed(f"option {name!r} of {cls.__qualname__} is now called {now!r}")
            if now in present:
                raise ConfigError(
                    f"{cls.__qualname__} gets {now!r} twice, once under an earlier name; write {now!r} only"
                )
            present[now] = value
        return present

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def override(self, assignments: Iterable[str]) -> Self:
        """A copy after assignments such as "model.width=32"; the type of the field determines how a value is read."""
        config = self
        for text in assignments:
            path, equals, value = text.partition("=")
            if not equals:
                raise ConfigError(f"{text!r} is not an assignment; write name=value, such as model.width=32")
            config = config._assign(path.strip().split("."), value.strip())
        return config

    def _assign(self, path: list[str], value: str) -> Self:
        known = hints(type(self))
        name, *rest = path
        (name,) = self.with_present_names({name: value})
        if name not in known:
            raise ConfigError(_unknown(type(self), name, known))
        if rest:
            inner = getattr(self, name)
            if not isinstance(inner, Config):
                raise ConfigError(f"{type(self).__qualname__}.{name} has no parts; {'.'.join(path)!r} names one")
            return self.replace(**{name: inner._assign(rest, value)})
        return self.replace(**{name: from_text(value, known[name], f"{type(self).__qualname__}.{name}")})


_hints: dict[type, dict[str, Any]] = {}


def hints(cls: type[Config]) -> dict[str, Any]:
    """Field name -> resolved type, in order of declaration; cached, because every constructor needs it."""
    if cls not in _hints:
        resolved = typing.get_type_hints(cls)
        _hints[cls] = {f.name: resolved[f.name] for f in dataclasses.fields(cls)}
    return _hints[cls]


def describe(cls: type[Config]) -> list[tuple[str, str, str, str]]:
    """(name, type, default, doc) of every field, for `zoo info` and for error messages; required fields have none."""
    rows = []
    for f in dataclasses.fields(cls):
        default = to_text(f.default) if f.default is not dataclasses.MISSING else ""
        if f.default_factory is not dataclasses.MISSING:
            default = to_text(f.default_factory())
        rows.append((f.name, type_name(hints(cls)[f.name]), default, f.metadata.get("doc", "")))
    return rows


def fields(cls: type[Config], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(path, type, default, doc) of every field that `override` can assign, inner records included: "model.width"."""
    rows = []
    for name, kind, default, doc in describe(cls):
        inner = hints(cls)[name]
        if isinstance(inner, type) and issubclass(inner, Config):
            rows += fields(inner, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", kind, default, doc))
    return rows


def to_text(value: Any) -> str:
    """The text of one value on a command line; `from_text` reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(to_text, value)) or "()"
    if isinstance(value, (dict, Config)):
        return json.dumps(_plain(value))
    return "none" if value is None else str(value)


def from_text(text: str, kind: Any, spot: str) -> Any:
    """Reads `text` as a value of type `kind`; `spot` is the name of the field in error messages."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if text.lower() == "none" and type(None) in args:
            return None
        return _of_union(kind, text, spot, lambda member: from_text(text, member, spot))
    if kind is bool:
        if text.lower() in ("yes", "true", "on", "1"):
            return True
        if text.lower() in ("no", "false", "off", "0"):
            return False
    elif kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    elif kind is str:
        return text
    elif origin is typing.Literal:
        for choice in args:
            if text == str(choice):
                return choice
    elif origin is tuple:
        stripped = text.strip("[]() ")
        return tuple(from_text(part.strip(), args[0], spot) for part in stripped.split(",") if part.strip())
    elif hasattr(kind, "parse"):
        return kind.parse(text)
    elif origin is dict or (isinstance(kind, type) and issubclass(kind, Config)):
        try:
            return _parsed(json.loads(text), kind, spot)
        except json.JSONDecodeError:
            pass
    raise ConfigError(f"{spot} cannot be {text!r}; it takes {type_name(kind)}")


def type_name(kind: Any) -> str:
    """A type in words: "whole number", "one of a, b", ..."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if a is type(None) else type_name(a) for a in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return f"list of {type_name(args[0])}s"
    if origin is dict:
        return f"mapping of names to {type_name(args[1])}s"
    return {int: "whole number", float: "number", bool: "yes or no", str: "text"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )


def _unknown(cls: type[Config], name: str, known: Iterable[str]) -> str:
    hint = nearest(name, known)
    if not hint:  # a field of an inner record, written without its path
        paths = {path.rpartition(".")[2]: path for path, *_ in fields(cls)}
        close = difflib.get_close_matches(name, paths, n=1)
        hint = f' (did you mean "{paths[close[0]]}"?)' if close else ""
    return f"{cls.__qualname__} has no option {name!r}{hint}; its options are {', '.join(known) or 'none'}"


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in a value: itself, or those in a tuple or mapping."""
    if isinstance(value, (tuple, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _of_union(kind: Any, value: Any, spot: str, read: Callable[[Any], Any]) -> Any:
    """The value that the first matching member of a union reads."""
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    if len(members) == 1:
        return read(members[0])  # its error is more specific than the one below
    for member in members:
        try:
            return read(member)
        except ConfigError:
            continue
    raise ConfigError(f"{spot} cannot be {value!r}; it takes {type_name(kind)}")


def _checked(value: Any, kind: Any, spot: str) -> Any:
    """`value` if it is of type `kind` (whole numbers pass as numbers, lists as tuples), else an error."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _of_union(kind, value, spot, lambda member: _checked(value, member, spot))
    if origin is typing.Literal:
        good = any(value == choice and type(value) is type(choice) for choice in args)
    elif origin is tuple and isinstance(value, (tuple, list)):
        return tuple(_checked(v, args[0], spot) for v in value)
    elif origin is dict and isinstance(value, Mapping):
        return {k: _checked(v, args[1], f"{spot}[{k}]") for k, v in value.items()}
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            good = False
    elif isinstance(kind, type):
        good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    else:
        good = False
    if not good:
        raise ConfigError(f"{spot} cannot be {value!r}; it takes {type_name(kind)}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _parsed(value: Any, kind: Any, spot: str) -> Any:
    """The inverse of `_plain` for a field of type `kind`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union) and value is not None:
        return _of_union(kind, value, spot, lambda member: _checked(_parsed(value, member, spot), member, spot))
    if isinstance(kind, type) and issubclass(kind, Config) and isinstance(value, Mapping):
        return kind.from_dict(value)
    if origin is tuple and isinstance(value, list):
        return tuple(_parsed(v, args[0], spot) for v in value)
    if origin is dict and isinstance(value, Mapping):
        return {k: _parsed(v, args[1], spot) for k, v in value.items()}
    if hasattr(kind, "parse") and isinstance(value, str):
        return kind.parse(value)
    return value
