"""Signatures of commands: the settings of a typed function, or of a dataclass, with their help.

A command is a typed function with a docstring. Its keyword-only parameters are options, required
ones where they have no default; the others are positional arguments, optional ones where they have
a default. A parameter whose type is a dataclass stands for the options of its own fields.

A function whose only parameter is a dataclass keeps the dataclass's groups, so that its options are
nested (`--optimizer.lr`) and recipes can set them. Its fields are options; positional are those
without a default and those marked by `caduceus_jax.settings.positional`.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import docstring_parser

Place = Literal["positional", "required", "option", "advanced", "recipe"]


class Setting(NamedTuple):
    """Describes one value that a command takes."""

    name: str  # as in Python, dotted inside groups: optimizer.weight_decay
    hint: Any  # its type
    default: Any  # None for positional and required ones
    help: str
    place: Place
    group: str  # title under which the manual page lists it; empty outside groups
    required: bool
    alias: str = ""  # another name of the option, which is accepted and not shown

    @property
    def option(self) -> str:
        """The setting as an option of the command line: `--optimizer.weight-decay`."""
        return "--" + self.name.replace("_", "-")

    @property
    def shown(self) -> str:
        """Returns what a person calls the setting: MODEL, or --batch-size."""
        return self.name.upper() if self.place == "positional" else self.option


@dataclasses.dataclass(frozen=True)
class Signature:
    """Holds everything that a command takes.

    Attributes:
        description: the docstring without its sections and examples.
        examples: the examples of the docstring, as they stand there; empty if there are none.
        settings: settings by name.
        recipes: whether the command reads recipes (`--config`).
        build: makes the arguments of the call, by name, from the values of all settings.
    """

    description: str
    examples: str
    settings: dict[str, Setting]
    recipes: bool
    build: Callable[[dict[str, Any]], dict[str, Any]]

    @property
    def positional(self) -> list[Setting]:
        """The positional settings, in order."""
        return [setting for setting in self.settings.values() if setting.place == "positional"]


def signature(function: Callable[..., Any]) -> Signature:
    """Reads what a command takes from its function.

    Args:
        function: typed, with a Google-style docstring.

    Returns:
        Its signature; `build` returns keyword arguments of the function.
    """
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) == 1 and _is_dataclass(only := hints[parameters[0].name]):
        return config_signature(only, inspect.getdoc(function) or "", parameters[0].name)
    helps = _helps(function)
    settings: dict[str, Setting] = {}
    groups: dict[str, tuple[type, list[Setting]]] = {}
    for parameter in parameters:
        name, hint = parameter.name, hints[parameter.name]
        if _is_dataclass(hint):
            defaults = None if parameter.default is parameter.empty else parameter.default
            fields = list(_fields(hint, "", _title(hint), defaults))
            groups[name] = hint, fields
            found = fields
        else:
            found = [_of_parameter(parameter, hint, helps.get(name, ""))]
        for setting in found:
            if setting.name in settings:
                raise TypeError(f"{function.__name__} has two settings called {setting.name}")
            settings[setting.name] = setting

    def build(values: dict[str, Any]) -> dict[str, Any]:
        """Sorts the values into the function's parameters."""
        built = {name: _instance(hint, values) for name, (hint, _) in groups.items()}
        plain = {p.name: values[p.name] for p in parameters if p.name not in groups}
        return plain | built

    description, examples = _split(inspect.getdoc(function) or "")
    return Signature(description, examples, settings, False, build)


def config_signature(config: type, doc: str = "", name: str = "config") -> Signature:
    """Reads what a command takes from the dataclass that is its only argument.

    Args:
        config: the dataclass; its fields may be dataclasses too.
        doc: the docstring that the manual page starts with; by default the dataclass's.
        name: the name of the argument.
    """
    settings = {setting.name: setting for setting in _fields(config, "", "", None)}
    description, examples = _split(doc or inspect.getdoc(config) or "")

    def build(values: dict[str, Any]) -> dict[str, Any]:
        """Sorts the values into the function's parameters."""
        return {name: _instance(config, values)}

    return Signature(description, examples, settings, True, build)


def _of_parameter(parameter: inspect.Parameter, hint: Any, text: str) -> Setting:
    required = parameter.default is parameter.empty
    place: Place = "required" if required else "option"
    if parameter.kind is not parameter.KEYWORD_ONLY:
        place = "positional"
    default = None if required else parameter.default
    return Setting(parameter.name, hint, default, text, place, "", required)


def _fields(config: type, prefix: str, group: str, defaults: Any) -> Iterator[Setting]:
    """Lists the settings of a dataclass, those of its groups under dotted names."""
    hints, helps = typing.get_type_hints(config), _helps(config)
    for field in dataclasses.fields(config):
        name, hint = prefix + field.name, hints[field.name]
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        required = default is dataclasses.MISSING
        if _is_dataclass(hint):
            title = f"{name}: {_title(hint)}"
            yield from _fields(hint, f"{name}.", title, None if required else default)
            continue
        usual = "option" if not required else "required" if field.kw_only else "positional"
        place = field.metadata.get("place", usual)
        if field.metadata.get("option") is False:
            place = "recipe"
        if prefix and place == "positional":
            place = "required" if required else "option"
        text = helps.get(field.name, "")
        shown, alias = None if required else default, field.metadata.get("alias", "")
        yield Setting(name, hint, shown, text, place, group, required, alias)


def _instance(config: type, values: dict[str, Any], prefix: str = "") -> Any:
    hints = typing.get_type_hints(config)
    arguments = {}
    for field in dataclasses.fields(config):
        name, hint = prefix + field.name, hints[field.name]
        nested = _is_dataclass(hint)
        arguments[field.name] = _instance(hint, values, f"{name}.") if nested else values[name]
    return config(**arguments)


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _title(config: type) -> str:
    """Returns the first sentence of a dataclass's docstring, as the title of a group."""
    first = docstring_parser.parse(config.__doc__ or "").short_description or ""
    return first.partition(";")[0].rstrip(".")


def _helps(documented: Any) -> dict[str, str]:
    """Returns what a docstring says about each argument."""
    parsed = docstring_parser.parse(documented.__doc__ or "")
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}


def _split(doc: str) -> tuple[str, str]:
    """Returns the description and the examples of a docstring, without its sections."""
    parsed = docstring_parser.parse(doc)
    parts = (parsed.short_description, parsed.long_description)
    text = "\n\n".join(part for part in parts if part)
    lines = text.split("\n")
    heads = [i for i, line in enumerate(lines) if line.strip() in ("examples:", "example:")]
    if not heads:
        return text, ""
    end = next(
        (i for i in range(heads[0] + 1, len(lines)) if lines[i] and not lines[i].startswith(" ")),
        len(lines),
    )
    rest = "\n".join([*lines[: heads[0]], *lines[end:]]).strip()
    return rest, "\n".join(lines[heads[0] + 1 : end]).rstrip()
