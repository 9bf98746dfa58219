"""Renders the templates. Everything is escaped; FILTERS is all that a template can call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dbbackup import __version__
from dbbackup.api.conditions import instant
from dbbackup.api.objects import Raw
from dbbackup.api.units import size_text
from dbbackup.console import views
from dbbackup.console.rows import AnyRow, Badge, badges
from dbbackup.console.service import Caller


def object_yaml(obj: Raw) -> str:
    """The object as YAML, without `managedFields`."""
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return yaml.safe_dump({**obj, "metadata": meta}, sort_keys=False, allow_unicode=True, width=120)


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else instant(value)


@pass_context
def _age(context: Context, then: Any) -> str:
    return views.age_text(_moment(then), context["now"])


@pass_context
def _until(context: Context, then: Any) -> str:
    return views.until_text(_moment(then), context["now"])


@pass_context
def _badges(context: Context, row: AnyRow) -> tuple[Badge, ...]:
    return badges(row, context["now"])


FILTERS: dict[str, Callable[..., Any]] = {
    "age": _age,
    "until": _until,
    "badges": _badges,
    "time": lambda then: views.time_text(_moment(then)),
    "iso": lambda then: then.isoformat() if isinstance(then, datetime) else str(then),
    "bytes": size_text,
    "log": views.log_text,
    "count": lambda number: f"{number:,}".replace(",", " "),
}


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dbbackup.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["version"] = __version__
    environment.filters.update(FILTERS)
    return environment


class Renderer:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def page(self, request: Request, caller: Caller | None, template: str, code: int = 200, **values: Any) -> HTMLResponse:
        session = caller.session if caller else None
        fragment = template.startswith("_")
        text = (
            _environment()
            .get_template(template)
            .render(
                {
                    "person": caller.person.name if caller else "",
                    "csrf": session.csrf if session else "",
                    "flashes": session.take_flashes() if session and not fragment else [],
                    "now": self._now(),
                    "path": request.url.path,
                    "problem": None,
                    "preview": None,
                    "why": "",
                    **values,
                }
            )
        )
        return HTMLResponse(text, code)
