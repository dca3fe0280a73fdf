"""Functions that all pages share: style sheet, script, escaping and content security policy."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.data.index import replacing
from unibiomed.export.formatting import plain

__all__ = ["SCRIPT", "as_text", "jpeg", "write_html"]

MAX_TEXT_LENGTH = 1500
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#181c22;background:#fff;max-width:1200px;margin:0 auto}
body{padding:1rem 1.2rem}h1{margin-bottom:.2rem}
h2{margin-top:2.2rem;border-bottom:1px solid #dadee4}h3{margin-bottom:.4rem}
.secondary,.note,figcaption{color:#5a626d}.note{font-size:.87rem;margin-top:.3rem}.wide{overflow-x:auto}
.warning{border-left:4px solid #d55e00;padding:.3rem .8rem;background:#fdf3ec}
table{border-collapse:collapse;font-size:.87rem}th,td{padding:.25rem .6rem;text-align:right;vertical-align:top}
th{background:#f3f5f7;vertical-align:bottom}td{border-top:1px solid #e5e8ec}
td{white-space:nowrap}th:first-child,td:first-child,td.text,th.text{text-align:left}
td.text{white-space:normal;min-width:7rem;max-width:22rem;overflow-wrap:anywhere}body.full-width{max-width:none}
figure{margin:1.2rem 0}figure img{max-width:100%;height:auto}td img{display:block;max-width:224px;height:auto}
summary{cursor:pointer;font-weight:600;margin:.5rem 0}nav a{margin-right:1rem}
th button{all:unset;cursor:pointer;font-weight:inherit}th button:focus-visible{outline:2px solid #0072b2}
th[aria-sort=ascending] button::after{content:" \\25b2"}th[aria-sort=descending] button::after{content:" \\25bc"}
.failed{color:#a33c00}.key{white-space:nowrap;margin-right:.6rem;font-size:.8rem}
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, place = head.cellIndex, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const value = (row) => row.cells[place].dataset.value ?? "";
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      // rows without a value are last in both directions
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (head.dataset.kind === "number" ? x - y : x.localeCompare(y));
    };
    body.append(...Array.from(body.rows).sort(compare));
  });
}
"""


def as_text(value: Any, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Escape text for use between tags and inside of quoted attributes."""
    return escape(plain(str(value), max_length))


def jpeg(pixels: np.ndarray) -> str:
    """Encode an image, (height, width, 3) uint8, as a data URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def write_html(path: Path, title: str, body: Sequence[str], *, full_width: bool = False) -> None:
    """Write a page that loads no other file and runs no script except `SCRIPT`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    text = "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{as_text(title, 200)}</title>",
            f"<style>{STYLE}</style>\n</head>",
            '<body class="full-width">' if full_width else "<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
