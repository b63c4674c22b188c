"""Base of the training configuration models: strict field types, and validation errors that name place and value.

In: a plain mapping, as YAML gives it, and where it comes from.  Out: a pydantic model, or a ConfigError with one line
for each fault: file and line, key, value, and what is expected.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from pipeline.config.yaml_file import Key, dotted
from pipeline.errors import ConfigError


class Section(BaseModel):
    """A mapping of settings; unknown keys and numbers that are not finite are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _number(value: object) -> object:
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)  # YAML 1.1 reads 1e-4, without a decimal point, as text
    return value


def one_of(known: tuple[str, ...]) -> AfterValidator:
    """Return a validator that accepts the given names only."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    return AfterValidator(check)


Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), BeforeValidator(_number)]
Count = Annotated[int, Strict(), Field(ge=0)]
PositiveInt = Annotated[int, Strict(), Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]

Model = TypeVar("Model", bound=Section)


def validated(model: type[Model], content: object, source: str, line_of: Callable[[Key], int | None]) -> Model:
    """Return the model of a mapping; raise ConfigError with one line for each fault.

    `line_of` returns the line of a key in the file `source`, None where it is not known.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: is a {type(content).__name__}; must be a mapping of settings")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError("\n".join(_explained(model, content, source, line_of, fault) for fault in faults)) from None


def _explained(
    model: type[Section], content: object, source: str, line_of: Callable[[Key], int | None], fault: Mapping[str, Any]
) -> str:
    key, section = _resolved(model, content, fault["loc"])
    line = line_of(key)
    place = f"{source}: " if line is None else f"{source}:{line}: "
    context, value = fault.get("ctx", {}), fault["input"]
    match fault["type"]:
        case "extra_forbidden":
            return f"{place}{dotted(key)} = {value!r}: unknown key; must be one of {', '.join(section.model_fields)}"
        case "missing":
            return f"{place}{dotted(key)}: is required"
        case "union_tag_invalid" | "union_tag_not_found":
            value = value.get("kind") if isinstance(value, dict) else value
            return f"{place}{dotted(key)}.kind = {value!r}; must be one of {', '.join(_kinds(section, key[-1]))}"
        case "model_type":
            return f"{place}{dotted(key)} = {value!r}; must be a mapping of settings"
        case "too_short":
            expected = f"must have at least {context['min_length']} entry"
        case "value_error" if isinstance(value, Section | dict):  # of several keys, which the text names
            return f"{place}{context['error']}"
        case "value_error":
            expected = str(context["error"])
        case _:
            expected = fault["msg"].replace("Input should be", "must be")
    return f"{place}{dotted(key)} = {value!r}; {expected}"


def _resolved(model: type[Section], content: Any, location: tuple[str | int, ...]) -> tuple[Key, type[Section]]:
    """Return the key as the file has it, without the tags of unions, and the innermost section on the way."""
    key: list[str | int] = []
    section = model
    for part in location:
        if isinstance(content, dict) and part not in content and part == content.get("kind"):
            continue
        field = section.model_fields.get(str(part)) if isinstance(content, dict) else None
        content = content.get(part) if isinstance(content, dict) else content[part]
        key.append(part)
        options = _sections(field.annotation) if field else []
        kind = content.get("kind") if isinstance(content, dict) else None
        if len(options) == 1:
            section = options[0]
        elif chosen := [option for option in options if option.model_fields["kind"].default == kind]:
            section = chosen[0]
    return tuple(key), section


def _sections(annotation: Any) -> list[type[Section]]:
    options = get_args(annotation) or (annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, Section)]


def _kinds(section: type[Section], key: str | int) -> list[str]:
    return [option.model_fields["kind"].default for option in _sections(section.model_fields[str(key)].annotation)]
