"""The pages of the site: those of the repository, where they lie in it, and the API's.

MkDocs reads one folder. Here it is told of all others that pages lie in, and of the files that
pages link to; a page of the API is made of names, whose docstrings mkdocstrings fills in.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import mra_plugin

ROOT = Path(__file__).parents[2]
PAGES = ["*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/*.md"]
LINK = re.compile(r"\]\(([^):#\s]+)(?:#[^)]*)?\)")

API = {
    "ops": (
        "Attention",
        [
            "mra_plugin.ops.mra_attention",
            "mra_plugin.ops.mra_attention_weights",
            "mra_plugin.ops.MRAOptions",
            "mra_plugin.ops.preset_options",
            "mra_plugin.ops.nystrom_attention",
            "mra_plugin.ops.nystrom_attention_weights",
            "mra_plugin.ops.damped_ema",
        ],
    ),
    "models-you-have": (
        "In models",
        [
            *(f"mra_plugin.{name}" for name in mra_plugin.__all__ if name.islower()),
            "mra_plugin.convert.stretch",
            "mra_plugin.convert.to_mra",
        ],
    ),
    "families": (
        "Model families",
        [f"mra_plugin.{name}" for name in mra_plugin.__all__ if not name.islower()],
    ),
    "registry": ("Registry", ["mra_plugin.registry"]),
    "testing": ("Testing a backend", ["mra_plugin.testing"]),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Has the guide's pages follow one another as docs/README.md lists them."""
    index = (ROOT / "docs/README.md").read_text("utf-8")
    guide = [
        {title: (ROOT / "docs" / page).resolve().relative_to(ROOT).as_posix()}
        for title, page in re.findall(r"^\| \[(.+?)\]\((.+?\.md)\) \|", index, re.MULTILINE)
    ]
    config.nav = [
        {"Overview": "README.md"},
        {"Guide": ["docs/README.md", *guide]},
        {"API": [{title: f"api/{name}.md"} for name, (title, _) in API.items()]},
        *({name: f"{name.upper()}.md"} for name in ("Changelog", "Security")),
        {"Benchmarks on a GPU": "benchmarks/gpu/README.md"},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All pages, and what they link to, under their paths in the repository."""
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    linked = {
        target
        for page in pages
        for link in LINK.findall(page.read_text("utf-8"))
        if (target := (page.parent / link).resolve()).is_file() and target.is_relative_to(ROOT)
    }
    own = {ROOT / "docs/site" / name for name in ("iframe-worker.js", "style.css")}
    of_theme = [file for file in files if file.src_dir != config.docs_dir]
    found = [
        File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        for path in sorted({*pages, *linked, *own})
    ]
    api = [
        File.generated(config, f"api/{name}.md", content=api_page(*page))
        for name, page in API.items()
    ]
    return Files([*of_theme, *found, *api])


def api_page(title: str, names: list[str]) -> str:
    """Markdown that mkdocstrings fills in."""
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])
