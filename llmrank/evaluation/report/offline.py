"""A template and a style sheet go in; a template comes out whose page opens offline, runs nothing and escapes everything.

The page's policy (CSP) lets a browser apply just that style sheet, by its hash, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from llmrank.evaluation.report.visible import visible


@lru_cache
def offline_template(package: str, name: str, sheet: str) -> Template:
    """The template, which finds `css` and `policy` among its variables, and what it imports or extends beside it.

    Every value is escaped; the filter `visible` shows what hides in foreign text.

    Args:
        package: Where template and style sheet lie: ``llmrank.experiment.report``.
        name: The template's file.
        sheet: The style sheet's file.
    """
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = files(package).joinpath(sheet).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment.filters["visible"] = visible
    environment.globals["css"] = Markup(css)  # noqa: S704  # our own file
    environment.globals["policy"] = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template(name)
