"""`MixerSpec`: which mixer, with which options, as a value that travels as text: `bimamba:state=32:conv=4`.

Colons separate the options, so that commas can separate specs and no shell needs quotes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from temporal_zoo.config import ConfigError, from_text, hints, nearest, to_text


@dataclass(frozen=True)
class MixerSpec:
    """A mixer's name and its options as written; `config()` turns them into the mixer's typed record.

    `str(spec)` is the canonical text: options in the order of the mixer's `Config`, defaults dropped.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "name" or "name:option=value:option=value"."""
        name, *parts = text.strip().split(":")
        if not name:
            raise ConfigError(f"{text!r} names no mixer; write for example bimamba or bimamba:state=32")
        options: dict[str, str] = {}
        for part in parts:
            key, equals, value = part.partition("=")
            if not (equals and key and value):
                raise ConfigError(f"{part!r} in {text!r} is not an option; write name=value, such as state=32")
            if key in options:
                raise ConfigError(f"{text!r} sets {key!r} twice")
            options[key] = value
        return cls(name, tuple(options.items()))

    def config(self):
        """The options as the mixer's `Config`, checked; imports the mixer."""
        from temporal_zoo.registry import get

        kind = get(self.name).mixer.Config
        known = hints(kind)
        values = {}
        for key, text in self._without_flavour(kind.flavours):
            if key not in known:
                raise ConfigError(
                    f"mixer {self.name!r} has no option {key!r}{nearest(key, known)}; "
                    f"its options are {', '.join(known) or 'none'} (see: zoo info {self.name})"
                )
            values[key] = from_text(text, known[key], f"{self.name}:{key}")
        return kind(**values)

    def _without_flavour(self, flavours: dict[str, str]) -> Iterable[tuple[str, str]]:
        """The options with `flavour=name` replaced by what it stands for; an option written beside it wins."""
        options = dict(self.options)
        if not flavours or (name := options.pop("flavour", None)) is None:
            return self.options
        if name not in flavours:
            raise ConfigError(
                f"mixer {self.name!r} has no flavour {name!r}{nearest(name, flavours)}; it has {', '.join(flavours)}"
            )
        return (dict(self.parse(f"{self.name}:{flavours[name]}").options) | options).items()

    def canonical(self) -> Self:
        """The same choice with defaults dropped and options in the order of the mixer's `Config`; imports the mixer."""
        config = self.config()
        default = type(config)()
        kept = [(k, getattr(config, k)) for k in config.to_dict() if getattr(config, k) != getattr(default, k)]
        return type(self)(self.name, tuple((k, to_text(v)) for k, v in kept))

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.options)])
