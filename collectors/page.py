"""The report's page: one HTML file that needs no network. Style, script and the small pieces that text is put into.

Every recorded string passes `escape`; figures travel as JSON in which no "<" is left; a content security policy allows
the page's own scripts by their hash, and no other.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

import msgspec

STYLE = """
:root { color-scheme: light dark; --paper:#fff; --page:#f4f6f9; --ink:#18202c; --muted:#66717f; --line:#e2e7ee;
  --good:#157a55; --good-bg:#e5f5ed; --warn:#8a5200; --warn-bg:#fdf1dc; --accent:#2b6fd6; }
@media (prefers-color-scheme: dark) { :root { --paper:#161c25; --page:#0e131a; --ink:#e4e9f0; --muted:#94a0b0;
  --line:#2a3340; --good:#6fd6a8; --good-bg:#12301f; --warn:#f3bf6b; --warn-bg:#372607; --accent:#7fb0ff; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
  "Helvetica Neue",sans-serif; font-variant-numeric: tabular-nums; }
main { max-width:1180px; margin:0 auto; padding:28px 20px 60px; }
h1 { font-size:30px; line-height:1.2; margin:4px 0 8px; letter-spacing:-.02em; text-wrap:balance; }
h2 { font-size:19px; margin:0 0 2px; letter-spacing:-.01em; }
.over, .says, .note, caption { color:var(--muted); }
.over { font-size:13px; } .says { margin:0 0 10px; max-width:110ch; }
.lede { font-size:18px; max-width:78ch; margin:0 0 18px; } .lede b { font-weight:650; }
.badge { display:inline-block; vertical-align:middle; font-size:12px; font-weight:700; letter-spacing:.08em;
  padding:3px 9px; border-radius:99px; background:var(--warn-bg); color:var(--warn); border:1px solid currentColor; }
.verdict { border-radius:10px; padding:11px 16px; margin:0 0 16px; border-left:5px solid; }
.verdict b { font-weight:700; } .verdict ul { margin:4px 0 0; padding-left:20px; }
.verdict .note { font-size:13.5px; color:var(--ink); opacity:.8; }
.good { background:var(--good-bg); color:var(--good); } .bad { background:var(--warn-bg); color:var(--warn); }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(148px,1fr)); gap:10px; margin:0 0 12px; }
.card, section { background:var(--paper); border:1px solid var(--line); border-radius:12px; }
.card { padding:12px 14px; } .card .name { color:var(--muted); font-size:13px; }
.card .big { font-size:27px; font-weight:680; letter-spacing:-.03em; line-height:1.25; white-space:nowrap; }
.card .small { color:var(--muted); font-size:12.5px; line-height:1.35; }
section { padding:18px 20px; margin:14px 0 0; overflow-x:auto; break-inside:avoid; }
.split { display:flex; height:16px; border-radius:8px; overflow:hidden; gap:1px; margin:4px 0 6px; }
.key { display:flex; flex-wrap:wrap; gap:4px 16px; font-size:12.5px; color:var(--muted); }
.key i { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:5px; }
table { border-collapse:collapse; width:100%; font-size:13.5px; } caption { text-align:left; padding:0 0 6px; }
th, td { padding:5px 10px; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap; }
th { font-weight:600; color:var(--muted); font-size:12.5px; white-space:normal; vertical-align:bottom; }
tr:last-child td { border-bottom:0; }
th:first-child, td:first-child { text-align:left; padding-left:0; }
.words th, .words td { text-align:left; white-space:normal; }
tr.sum td { font-weight:650; border-top:2px solid var(--line); }
details summary { cursor:pointer; font-weight:600; } pre { overflow-x:auto; font-size:12.5px; line-height:1.45; }
dl { display:grid; grid-template-columns:max-content 1fr; gap:4px 16px; font-size:13.5px; } dt { font-weight:600; }
dd { margin:0; color:var(--muted); } footer { color:var(--muted); font-size:12.5px; margin-top:18px; }
@media (max-width:640px) { h1 { font-size:23px; } .lede { font-size:16px; } main { padding:16px 10px; }
  section { padding:14px 12px; } dl { grid-template-columns:1fr; } dd { margin-bottom:6px; } }
@media print { body { background:#fff; } main { max-width:none; padding:0; } }
"""

SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function themed(value, look) {
  if (typeof value === "string") return value.startsWith("--") ? look.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return typeof value[0] === "object" ? value.map(v => themed(v, look)) : value;
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, look)]));
  return value;
}
function draw() {
  const look = getComputedStyle(document.documentElement), line = look.getPropertyValue("--line").trim();
  const font = {family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12,
                color: look.getPropertyValue("--ink").trim()};
  for (const [name, figure] of Object.entries(figures)) {
    const {data, layout} = themed(figure, look);
    for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key))
      layout[key] = {gridcolor: line, linecolor: line, zeroline: false, automargin: true, ...layout[key]};
    Plotly.react(name, data, {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font,
      margin: {l: 56, r: 24, t: 58, b: 40}, hovermode: "x unified",
      hoverlabel: {bgcolor: look.getPropertyValue("--paper").trim(), bordercolor: line, font: {size: 12}},
      legend: {orientation: "h", x: 0, y: 1, yref: "container", yanchor: "top", traceorder: "normal"}, ...layout},
      {displaylogo: false, responsive: true,
       modeBarButtons: [["toImage"]], toImageButtonOptions: {format: "png", scale: 2, filename: name}});
  }
}
draw();
dark.addEventListener("change", draw);
"""


def page(title: str, body: Iterable[str], figures: dict[str, Any]) -> str:
    """The whole file. `figures` are drawn into the elements that bear their names."""
    data = msgspec.json.encode(figures).decode().replace("<", "\\u003c")
    library = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    allowed = " ".join(_hash(script) for script in (library, SCRIPT))
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    scripts = (
        f'<script type="application/json" id="figures">{data}</script>'
        f"<script>{library}</script><script>{SCRIPT}</script>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><main>{"".join(body)}</main>{scripts}</body></html>\n'
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def section(title: str, says: str, *parts: str) -> str:
    """A part of the report: a heading, one sentence that says what it shows (trusted HTML), and its parts."""
    return f'<section><h2>{escape(title)}</h2><p class="says">{says}</p>{"".join(parts)}</section>'


def plot(name: str, height: int) -> str:
    """Where the figure `name` is drawn."""
    return f'<div id="{escape(name)}" style="height:{height}px"></div>'


def card(name: str, big: str, small: str) -> str:
    """One number of the top row, with the line that explains it."""
    inner = f'<div class="name">{escape(name)}</div><div class="big">{escape(big)}</div>'
    return f'<div class="card">{inner}<div class="small">{escape(small)}</div></div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], total: bool = False, words: bool = False) -> str:
    """A table of text cells, numbers to the right; the last row may be the sum. Or of words, to the left."""
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    if total and lines:
        lines[-1] = lines[-1].replace("<tr>", '<tr class="sum">', 1)
    look = ' class="words"' if words else ""
    return (
        f"<table{look}><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr></thead>{''.join(lines)}</table>"
    )


def split_bar(parts: Sequence[tuple[str, str, float, str]]) -> str:
    """One bar cut into shares: (name, colour, amount, how the amount is written)."""
    whole = sum(amount for _, _, amount, _ in parts) or 1.0
    bar = "".join(f'<div style="width:{a / whole:.3%};background:{c}"></div>' for _, c, a, _ in parts if a)
    key = "".join(f'<span><i style="background:{c}"></i>{escape(n)} {escape(t)}</span>' for n, c, _, t in parts)
    return f'<div class="split">{bar}</div><div class="key">{key}</div>'
