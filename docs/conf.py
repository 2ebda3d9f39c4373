"""Settings of the documentation build."""

from __future__ import annotations

import os
from datetime import date
from importlib.metadata import metadata

from sphinx.ext.napoleon import NumpyDocstring

info = metadata("scjepa")
project = "scjepa"
author = "The scjepa developers"
copyright = f"{date.today():%Y}, {author}"
version = release = info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "tutorials/README.md"]  # docs/tutorials is a link to tutorials
source_suffix = {
    ".rst": "restructuredtext",
    ".md": "myst-nb",
    ".ipynb": "myst-nb",
}  # the first is what autosummary writes

autosummary_generate = True
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = False
napoleon_use_rtype = True
default_role = "literal"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are run by .ci/run and stored with their outputs

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "unsrt"

# Links into other packages need the network; an offline build has to work, and to fail on every warning.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/main", None),
    }

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {
    "repository_url": "https://github.com/scjepa/scjepa",
    "use_repository_button": True,
    "path_to_docs": "docs",
    "navigation_with_keys": False,
}


def _prose_returns(self: NumpyDocstring, section: str) -> list[str]:
    """Read a Returns section as prose: our types stand in the signatures, its first line is not a type."""
    lines = self._dedent(self._consume_to_next_section())
    return self._format_block(":returns: ", lines)


NumpyDocstring._parse_returns_section = _prose_returns
