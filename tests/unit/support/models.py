"""Models filled in whole by their types, and JSON as another version would write it.

It imports nothing of this version's, so that the first version's models can be filled by it too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

MOMENT = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
UNKNOWN = {"fromTheNextVersion": {"more": [1, "two", {"three": None}]}, "verdict": "Good"}
"""Fields that no model of this version has."""


def example(annotation: Any, *, text: str = "text", number: int = 5, many: int = 1, only_required: bool = False) -> Any:
    """A value of that type. In a model every field is set, unless `only_required`; every text is
    `text`, every list has `many` items; of choices the longest is taken."""
    known = {str: text, int: number, bool: True, datetime: MOMENT, bytes: b""}
    if annotation in known:
        return known[annotation]
    options: dict[str, Any] = {"text": text, "number": number, "many": many, "only_required": only_required}
    arguments = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is Literal:
            return max(arguments, key=lambda choice: len(str(choice)))
        case origin if origin is tuple:
            return tuple(example(arguments[0], **options) for _ in range(many))
        case origin if origin is Annotated:
            extras = [item for argument in arguments[1:] for item in (argument.metadata if isinstance(argument, FieldInfo) else [argument])]
            return _limited(arguments[0], extras, options)
        case origin if origin in (Union, UnionType):
            return example(next(choice for choice in arguments if choice is not type(None)), **options)
    assert issubclass(annotation, BaseModel), annotation
    fields = {name: field for name, field in annotation.model_fields.items() if field.is_required() or not only_required}
    return annotation.model_validate({name: _limited(field.annotation, field.metadata, options) for name, field in fields.items()})


def _limited(annotation: Any, limits: list[Any], options: dict[str, Any]) -> Any:
    if any(getattr(limit, "pattern", None) for limit in limits):
        return "a" * 64  # the one pattern that a model has is that of a SHA-256
    if at_most := next((limit.le for limit in limits if getattr(limit, "le", None) is not None), None):
        return min(at_most, options["number"])
    return example(annotation, **options)


def with_unknown(document: Any) -> Any:
    """The JSON document, with unknown fields in every object of it, at every depth."""
    if isinstance(document, dict):
        return {**{name: with_unknown(value) for name, value in document.items()}, **UNKNOWN}
    return [with_unknown(item) for item in document] if isinstance(document, list) else document
