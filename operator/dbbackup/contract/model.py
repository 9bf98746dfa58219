"""The base of every model that one process writes and another reads."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


def _one_line_a_paragraph(schema: dict[str, Any]) -> None:
    if text := schema.get("description"):
        schema["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", text)


class Model(BaseModel):
    """Fields are camelCase outside. A reader ignores fields that it does not know: the writer may
    be of another version, as after an upgrade that met running Jobs."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_extra=_one_line_a_paragraph,
    )

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)
