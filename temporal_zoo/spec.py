"""`MixerSpec`: the name and the options of a mixer as a value, with a text form: `bimamba:state=32:conv=4`.

A colon separates two options.  Commas stay free to separate specs, and no shell needs quotes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from temporal_zoo.config import Config, ConfigError, from_text, hints, nearest, to_text


@dataclass(frozen=True)
class MixerSpec:
    """A mixer's name and its options as texts; `config()` converts them to the mixer's typed record.

    `str(spec)` is the text that `parse` reads.
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

    @classmethod
    def of(cls, name: str, config: Config) -> Self:
        """The spec of a mixer with every option written out, so that no later default changes its meaning.

        A default that no text can express, such as an empty string, is left out.

        Raises:
            ConfigError: another value that no text can express.
        """
        default = type(config)()
        texts = {}
        for key, kind in hints(type(config)).items():
            value = getattr(config, key)
            text = to_text(value)
            if _is_readable(text, value, kind):
                texts[key] = text
            elif value != getattr(default, key):
                raise ConfigError(f"{name}:{key} is {value!r}, which the text of a spec cannot hold")
        return cls(name, tuple(texts.items()))

    def config(self, **values: Any) -> Any:
        """The options as the mixer's `Config`, checked; imports the mixer.

        Args:
            values: options as Python values; they override those of the text.
        Raises:
            UnknownMixer: no mixer has this name.
            ConfigError: the mixer does not have an option, or does not take its value.
        """
        from temporal_zoo.registry import get

        kind = get(self.name).mixer.Config
        known = hints(kind)
        texts = dict(self.options)
        if kind.flavours and "flavour" in values:
            texts["flavour"] = values.pop("flavour")
        texts = kind.with_present_names(self._without_flavour(texts, kind.flavours))
        values = kind.with_present_names(values)
        for key in (*texts, *values):
            if key not in known:
                raise ConfigError(
                    f"mixer {self.name!r} has no option {key!r}{nearest(key, known)}; "
                    f"its options are {', '.join(known) or 'none'} (see: zoo info {self.name})"
                )
        read = {key: from_text(text, known[key], f"{self.name}:{key}") for key, text in texts.items()}
        return kind(**read | values)

    def _without_flavour(self, options: dict[str, str], flavours: dict[str, str]) -> dict[str, str]:
        """The options with `flavour=name` replaced by the options that it stands for; an explicit option wins."""
        if not flavours or (name := options.pop("flavour", None)) is None:
            return options
        if name not in flavours:
            raise ConfigError(
                f"mixer {self.name!r} has no flavour {name!r}{nearest(str(name), flavours)}; "
                f"it has {', '.join(flavours)}"
            )
        return dict(self.parse(f"{self.name}:{flavours[name]}").options) | options

    def canonical(self) -> Self:
        """The same choice under present names, without defaults, in the order of the `Config`; imports the mixer."""
        config = self.config()
        default = type(config)()
        kept = [(k, getattr(config, k)) for k in config.to_dict() if getattr(config, k) != getattr(default, k)]
        return type(self)(self._present_name(), tuple((k, to_text(v)) for k, v in kept))

    def explicit(self) -> Self:
        """The same choice under present names, with every option written out; imports the mixer."""
        return self.of(self._present_name(), self.config())

    def _present_name(self) -> str:
        from temporal_zoo.registry import get

        return get(self.name).name

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.options)])


def _is_readable(text: str, value: Any, kind: Any) -> bool:
    """Whether an option's text comes back as its value from the text of a spec, also inside the text of a network."""
    if not text or set(text) & set(":+@"):
        return False
    try:
        return from_text(text, kind, "") == value
    except ConfigError:
        return False
