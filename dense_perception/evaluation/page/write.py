"""``report.html``: one file that needs nothing else, from a report and its pictures."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.core.errors import InputError
from dense_perception.core.printable import counted, printable
from dense_perception.core.storage import atomic_write_text
from dense_perception.evaluation.document import Report
from dense_perception.evaluation.page import charts
from dense_perception.evaluation.page.account import cost_section, made_section, skipped_section
from dense_perception.evaluation.page.details import SECTIONS
from dense_perception.evaluation.page.differences import changes_section, pairs_section
from dense_perception.evaluation.page.frames import gallery
from dense_perception.evaluation.page.overview import all_figures, main_section, verdict
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.things import things_section
from dense_perception.evaluation.page.wording import how_much, kind_of, moment

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
_TEMPLATES = "evaluation/page/templates"
# Where long names may be broken, but numbers may not.
_BREAKS = re.compile(r"(?<=[_/:])(?=\w)|(?<=[.-])(?=[^\W\d])")


def why_missing() -> str:
    """Why no page can be made; empty where Jinja is installed."""
    if find_spec("jinja2") is not None:
        return ""
    return "no report.html: Jinja2 is not installed: pip install 'dense_perception[report]'"


def write_page(report: Report, folder: Path) -> Path:
    """Write ``folder/report.html``, with the pictures of ``folder`` that the report names.

    Without Matplotlib the page has tables in place of charts, and says so.

    :raises InputError: if Jinja is not installed, or the file cannot be written.
    """
    path = folder / FILE
    text = page_text(report, folder)
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def page_text(report: Report, folder: Path) -> str:
    """The page as HTML; pictures are read below ``folder``.

    :raises InputError: if Jinja is not installed.
    """
    if missing := why_missing():
        raise InputError(missing)
    reading = Reading(report)
    changes, main, pairs = changes_section(reading), main_section(reading), pairs_section(reading)
    makers = (*SECTIONS, things_section)
    details = [section for make in makers if (section := make(reading)) is not None]
    shown = gallery(reading, folder)
    cost, skipped, made = cost_section(reading), skipped_section(reading), made_section(reading)
    parts = (changes, main, pairs, *details, shown, cost, skipped, made)
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            title=_title(reading),
            scale=how_much(report["data"]),
            created=moment(report["created"]),
            sections=[part for part in parts if part is not None],
            verdict=verdict(reading),
            changes=changes,
            main=main,
            all_figures=all_figures(reading),
            pairs=pairs,
            details=details,
            gallery=shown,
            cost=cost,
            skipped=skipped,
            made=made,
            no_charts=charts.why_missing(),
        )
    )


def _title(reading: Reading) -> str:
    models, data = reading.models, reading.report["data"]
    who = models[0]["name"] if len(models) == 1 else counted(len(models), "model")
    where = data[0]["name"] if len(data) == 1 else counted(len(data), kind_of(data))
    return f"{who} on {where}"


def page_environment() -> Environment:
    """Templates with autoescape; foreign names lose their control characters first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finished(value: object) -> object:
        return (
            printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        )

    environment = Environment(
        loader=PackageLoader("dense_perception", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finished,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def soft(text: str) -> Markup:
        """Long names may be broken after their separators."""
        return Markup(_BREAKS.sub("<wbr>", str(Markup.escape(printable(text)))))

    environment.filters["soft"] = soft
    environment.filters["svg"] = Markup
    environment.filters["anchor"] = lambda text: re.sub(r"[^\w.-]", "-", text, flags=re.ASCII)
    environment.globals["marker"] = charts.draw_marker
    environment.globals["series_count"] = charts.SLOTS
    return environment
