"""The report's style sheet: dark text on white, cards instead of tables on a narrow screen, A4 in print.

It loads nothing: the fonts are those that the reader has.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --ink: #14181f; --soft: #4b5563; --line: #d9dde3; --good: #0f6b3c; --bad: #b42318; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2.5rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; text-wrap: balance; }
h2 { margin: 3.5rem 0 .25rem; padding-top: 1rem; border-top: 3px solid var(--ink); font-size: 1.4rem; line-height: 1.25;
  overflow-wrap: anywhere; }
h3 { margin: 2.25rem 0 .5rem; font-size: 1.05rem; line-height: 1.3; }
p { margin: .4rem 0; max-width: 44rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .good, .bad { color: var(--good); font-weight: 600; } .bad { color: var(--bad); }
code { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: 1rem;
  margin: 1.25rem 0 0; }
.figures div { border-top: 2px solid var(--ink); padding-top: .35rem; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.figures small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.35; }
.facts { display: grid; grid-template-columns: 9.5rem 1fr; gap: .3rem 1.25rem; margin: 1rem 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .9rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; overflow-wrap: normal; } th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; padding-right: 1.75rem; } .d { white-space: nowrap; }
ul.plain { margin: 0; padding: 0; list-style: none; } ul.plain li + li { margin-top: .2rem; }
.blank { color: var(--soft); border-bottom: 1px dotted var(--soft); background: #f7f4e9; padding: .05rem .3rem;
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
figure.time { margin: 1rem 0; } figure.time figcaption { color: var(--soft); font-size: .9rem; margin-bottom: .75rem; }
.frame { display: grid; grid-template-columns: 4.5rem 1fr; grid-template-rows: 12rem 1.6rem; font-size: .8rem;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.sizes, .times { position: relative; } .sizes span { position: absolute; right: .6rem; transform: translateY(50%); }
.plot { border-bottom: 1px solid var(--ink);
  background: linear-gradient(var(--line), var(--line)) 0 0 / 100% 1px no-repeat,
    linear-gradient(var(--line), var(--line)) 0 50% / 100% 1px no-repeat; }
.plot svg { display: block; width: 100%; height: 100%; }
.times { grid-column: 2; padding-top: .3rem; }
.times span { position: absolute; transform: translateX(-50%); white-space: nowrap; padding-top: .3rem; }
.times span:first-child { transform: none; } .times span:last-child { transform: translateX(-100%); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .5rem 0 0 4.5rem; padding: 0; list-style: none;
  font-size: .88rem; overflow-wrap: anywhere; } .legend svg { width: .75rem; height: .75rem; }
.legend li { min-width: 0; }
footer { margin-top: 3.5rem; padding-top: .75rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .88rem; }
tr, figure, .figures { break-inside: avoid; } thead { display: table-header-group; } h2, h3 { break-after: avoid; }
@page { size: A4; margin: 16mm; }
@media screen and (max-width: 640px) {
  body { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.5rem; }
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: .5rem; }
  table, tbody, tr, td { display: block; } thead { display: none; }
  tr { padding: .6rem 0; border-bottom: 1px solid var(--line); }
  td, td.n { display: grid; grid-template-columns: 7.75rem minmax(0, 1fr); gap: .75rem; padding: .1rem 0; border: 0; }
  td::before { content: attr(data-label); color: var(--soft); } .n { text-align: left; } .n, .d { white-space: normal; }
  .figures { grid-template-columns: 1fr 1fr; } .figures dd { font-size: 1.25rem; }
  .frame { grid-template-columns: 3.6rem 1fr; } .times span:nth-child(even) { display: none; }
  .legend { margin-left: 0; }
}
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; } h1 { font-size: 18pt; }
  h2 { margin-top: 0; font-size: 14pt; } section.ledger { break-before: page; } h3 { margin-top: 1.4rem; }
  th, td { padding-block: .18rem; } .frame { grid-template-rows: 9rem 1.6rem; }
  svg, .blank, .plot { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
