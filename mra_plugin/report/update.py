"""Files that show results: what stands between two markers is generated.

<!-- mra report: speed -->
(the generated section)
<!-- end of mra report -->
"""

import re
from collections.abc import Sequence

from mra_plugin.errors import UserError
from mra_plugin.registry.names import nearest

from .markdown import escaped, section_markdown
from .results import Results
from .sections import NAMES, section

BEGIN = re.compile(r"<!-- mra report: *(.*?) *-->")
END = "<!-- end of mra report -->"
FENCE = re.compile(r" *(```|~~~)")


def updated(text: str, results: Sequence[Results]) -> str:
    """The text with each marked part replaced by the section that its marker names.

    Args:
        text: Markdown. A marker stands on a line of its own; those in code blocks don't count.
        results: where the figures come from; where there are several, each has its name above.

    Returns:
        The new text, the same as ``text`` if that is up to date.

    Raises:
        UserError: no marker, one without its end, or a section that is unknown or was not
            measured.
    """
    lines: list[str] = []
    open_line: int | None = None
    name = ""
    found = in_code = False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        stripped = line.strip()
        in_code ^= open_line is None and bool(FENCE.match(line))
        begin = None if in_code else BEGIN.fullmatch(stripped)
        if begin and open_line is not None:
            raise UserError(_unended(name, open_line))
        if begin:
            name, open_line, found = begin[1], number, True
            lines += [line, f"\n{_generated(name, number, results)}\n\n"]
        elif stripped == END and not in_code:
            if open_line is None:
                raise UserError(f"line {number}: {END!r} ends nothing")
            open_line = None
            lines.append(line)
        elif open_line is None:
            lines.append(line)
    if open_line is not None:
        raise UserError(_unended(name, open_line))
    if not found:
        raise UserError(f"there is nothing to update: no '<!-- mra report: NAME -->', {END!r}")
    return "".join(lines)


def _generated(name: str, line: int, results: Sequence[Results]) -> str:
    if name not in NAMES:
        raise UserError(
            f"line {line}: there is no section {name!r}{nearest(name, NAMES)}; "
            f"there are {', '.join(NAMES)}"
        )
    shown = [(one.title, section(name, one)) for one in results]
    bodies = [(title, section_markdown(part)) for title, part in shown if part]
    if not bodies:
        files = ", ".join(dict.fromkeys(source.file for one in results for source in one.sources))
        raise UserError(f"line {line}: nothing for section {name!r} was measured in {files}")
    # The machines' own section names them already.
    if len(bodies) == 1 or name == "machine":
        return "\n\n".join(body for _, body in bodies)
    return "\n\n".join(f"**{escaped(title)}**\n\n{body}" for title, body in bodies)


def _unended(name: str, line: int) -> str:
    return f"line {line}: the section {name!r} has no {END!r} after it"
