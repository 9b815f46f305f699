"""A page of HTML that loads nothing: text, tables, and pictures inside it."""

import base64
import html
from collections.abc import Iterable, Sequence

# Variables for the colours, so that dark mode and print change them alone.
_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e;
  --page: #f6f8fa; --card: #ffffff; --line: #d1d9e0; --link: #0a5bc4; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9aa4af; --page: #0d1117; --card: #161b22;
    --line: #30363d; --link: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: 0 0 .75rem; max-width: 46rem; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0 1rem; }
section { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: 1rem; margin: 0 0 1rem; }
.figures { display: grid; gap: 1rem; margin: 0 0 1rem; --least: 26rem;
  grid-template-columns:
    repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)); }
.three { --least: 20rem; }
section > :last-child { margin-bottom: 0; }
figure { margin: 0; max-width: 38rem; min-width: 0; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; }
.dark { display: none; }
@media screen and (prefers-color-scheme: dark) {
  .light { display: none; }
  .dark { display: block; } }
.scroll { overflow-x: auto; margin: 0 0 .75rem; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem;
  border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; white-space: nowrap; }
.numbers :is(th, td) { text-align: right; white-space: nowrap; }
.words td { min-width: 8rem; overflow-wrap: break-word; }
tr > :first-child:first-child { text-align: left; padding-left: 0; }
@media print {
  body { background: none; font-size: 10pt; }
  nav { display: none; }
  section { border: 0; padding: 0; }
  figure, tr, h2, h3 { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  .numbers :is(th, td) { white-space: normal; } }
"""


def document(
  title: str, subtitle: str, sections: Iterable[tuple[str, str, str]]
) -> str:
  """A whole page.

  Args:
    title: title, plain text like the subtitle.
    subtitle: one line below the title.
    sections: name in a link, heading, and content as HTML, of each section.
  """
  sections = [*sections]
  links = '\n'.join(
    f'<a href="#{name}">{html.escape(heading)}</a>'
    for name, heading, _ in sections
  )
  content = '\n'.join(
    f'<section id="{name}" aria-labelledby="{name}-heading">\n'
    f'<h2 id="{name}-heading">{html.escape(heading)}</h2>\n{text}\n</section>'
    for name, heading, text in sections
  )
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
<p class="soft">{html.escape(subtitle)}</p>
<nav aria-label="Sections">
{links}
</nav>
</header>
<main>
{content}
</main>
</body>
</html>
"""


def paragraph(text: str) -> str:
  """A paragraph of plain text."""
  return f'<p>{html.escape(text)}</p>'


def sentence(text: str) -> str:
  """A paragraph of one sentence, with its capital letter and full stop."""
  text = text.strip()
  return paragraph(text[:1].upper() + text[1:].rstrip('.') + '.')


def table(
  header: Sequence[str],
  rows: Iterable[Sequence[object]],
  caption: str = '',
  numbers: bool = True,
) -> str:
  """A table that scrolls by itself where the page is narrow.

  Args:
    header: names of the columns, the first of which names the rows.
    rows: cells, shown as text.
    caption: line above the table.
    numbers: True aligns cells to the right; False to the left, and breaks
      lines.
  """
  cell = lambda tag, value: f'<{tag}>{html.escape(str(value))}</{tag}>'
  head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
  body = '\n'.join(
    f'<tr><th scope="row">{html.escape(str(first))}</th>'
    f'{"".join(cell("td", value) for value in rest)}</tr>'
    for first, *rest in rows
  )
  caption = caption[:1].upper() + caption[1:]
  text = f'<caption>{html.escape(caption)}</caption>' if caption else ''
  # Focusable, so that it scrolls from the keyboard too.
  return (
    '<div class="scroll" tabindex="0" role="region" aria-label='
    f'"{html.escape(caption or header[0] or "table")}">\n'
    f'<table class="{"numbers" if numbers else "words"}">{text}\n'
    f'<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</div>'
  )


def figures(pictures: Iterable[str]) -> str:
  """Pictures beside each other where they fit, else below each other."""
  pictures = [*pictures]
  three = '' if len(pictures) % 3 else ' three'
  content = '\n'.join(pictures)
  return f'<div class="figures{three}">\n{content}\n</div>' if pictures else ''


def picture(
  light: bytes, dark: bytes, size: tuple[int, int], alt: str, caption: str = ''
) -> str:
  """A picture with its alternative text.

  Args:
    light: PNG for a light page and for print.
    dark: PNG for a dark page.
    size: width and height in pixels.
    alt: what the picture shows, in words.
    caption: line below it.
  """
  uri = lambda png: 'data:image/png;base64,' + base64.b64encode(png).decode()
  width, height = size
  caption = caption[:1].upper() + caption[1:]
  text = f'\n<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
  # Not <source media=...>: a browser does not choose again when it prints.
  images = '\n'.join(
    f'<img class="{theme}" src="{uri(png)}" width="{width}" height="{height}" '
    f'alt="{html.escape(alt)}">'
    for theme, png in (('light', light), ('dark', dark))
  )
  return f'<figure>\n{images}{text}\n</figure>'
