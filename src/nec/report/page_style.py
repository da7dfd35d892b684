"""How the page of a report looks and moves: plain CSS and JavaScript, nothing from elsewhere."""

STYLE = """
:root { color-scheme: light; --ink: #1c2330; --soft: #667085; --line: #e4e7ec; --card: #fff; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 1320px; background: #f6f7f9;
  color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .4rem; } h2 small, h3 small { color: var(--soft);
  font-weight: 400; font-size: .8em; margin-left: .5em; }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .4rem; }
p { max-width: 75ch; margin: .4rem 0; } .lead { font-size: 1.08rem; color: var(--soft); }
.answer { font-size: 1.05rem; } .note, footer { color: var(--soft); font-size: .86rem; }
nav a { margin-right: 1rem; } a { color: #0072b2; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 1rem 0; padding: 0; }
.facts div { line-height: 1.25; } .facts dt { color: var(--soft); font-size: .78rem; }
.facts dd { margin: 0; font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1rem; margin: .6rem 0; overflow-x: auto; }
details.card summary { cursor: pointer; font-weight: 600; }
.figure svg { width: 100%; height: auto; display: block; }
.figure svg text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif !important; }
.figure [data-curve] { transition: opacity .12s; }
.figure.focus [data-curve] { opacity: .1; } .figure.focus [data-curve].on { opacity: 1; }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; margin: .5rem 0; }
.chip { border: 1px solid var(--line); border-radius: 99px; background: var(--card); font: inherit;
  font-size: .84rem; padding: .1rem .7rem .1rem .5rem; cursor: pointer; }
.chip.off { opacity: .4; text-decoration: line-through; }
.dot { display: inline-block; width: .68em; height: .68em; border-radius: 50%;
  margin-right: .45em; background: var(--c); }
table { border-collapse: collapse; width: 100%; font-size: .84rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; background: var(--card); }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
tbody tr:last-child td { border-bottom: 0; } tbody tr:hover { background: #eef4fb; }
table.sortable th { cursor: pointer; user-select: none; }
table.sortable th:hover { color: var(--ink); }
th[data-order="1"]::after { content: " \\25B4"; } th[data-order="-1"]::after { content: " \\25BE"; }
.soft { color: var(--soft); } .hidden { display: none; } tr.raw td { font-weight: 600; }
.bar { position: relative; min-width: 150px; }
.bar i { position: absolute; left: 0; bottom: 2px; height: 3px; border-radius: 2px;
  width: calc(var(--w) - 6px); background: var(--c); opacity: .75; }
.scroll { max-height: 34rem; overflow: auto; } .scroll th { position: sticky; top: 0; z-index: 1; }
.matrix th.turn { height: 11rem; padding: .3rem 0; }
.matrix th.turn div { writing-mode: vertical-rl; transform: rotate(180deg); margin: auto; }
.matrix td { padding: .2rem .35rem; text-align: right; } .matrix td.name { text-align: left; }
"""

SCRIPT = """
document.querySelectorAll("table.sortable th").forEach(head => head.onclick = () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const order = head.dataset.order === "1" ? -1 : 1;
  head.parentNode.querySelectorAll("th").forEach(other => delete other.dataset.order);
  head.dataset.order = order;
  const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const numeric = value => value !== "" && !isNaN(value);
  [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return order * (numeric(x) && numeric(y) ? x - y : x.localeCompare(y));
  }).forEach(row => body.append(row));
});
document.querySelectorAll("section").forEach(section => {
  const figure = section.querySelector(".figure");
  const show = curve => {
    figure.classList.toggle("focus", curve !== null);
    figure.querySelectorAll("[data-curve]").forEach(
      part => part.classList.toggle("on", part.dataset.curve === curve));
  };
  section.querySelectorAll("[data-curve]").forEach(part => {
    part.addEventListener("mouseenter", () => show(part.dataset.curve));
    part.addEventListener("mouseleave", () => show(null));
  });
  section.querySelectorAll(".chip").forEach(chip => chip.onclick = () => {
    const off = chip.classList.toggle("off");
    section.querySelectorAll("[data-family='" + chip.dataset.of + "']").forEach(
      part => part.classList.toggle("hidden", off));
  });
});
"""
