"""How a scorecard's page looks: light and dark, from a phone's width up."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark;
  --ink: #1d2a1c; --soft: #5d6b5a; --page: #fbfcf8; --card: #fff; --line: #dfe5d8;
  --base: #a9b3a4; --good: #3f7d2c; --bad: #b3372c; --unsure: #8a660b; --blur: #eaeee4 }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4ebdf; --soft: #9dab98; --page: #14190f; --card: #1c2317; --line: #333d2c;
  --base: #66725f; --good: #8fce72; --bad: #f0887c; --unsure: #e0b84f; --blur: #232b1d } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; letter-spacing: -.01em;
  text-wrap: balance }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem } h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
p { margin: .4rem 0 } ul { margin: .4rem 0; padding-left: 1.2rem }
.soft { color: var(--soft) } .better, .approved { color: var(--good) }
.worse, .refused { color: var(--bad) } .undecided { color: var(--unsure) }
.note { border-left: 4px solid currentColor; background: var(--card); padding: .7rem 1rem;
  margin: 1.1rem 0; border-radius: 0 8px 8px 0; overflow-wrap: anywhere }
.note ul { color: var(--ink) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1.3rem 0 0 }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .7rem .9rem } .tile b { display: block; font-size: 1.3rem; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums } .tile span { color: var(--soft); font-size: .82rem;
  line-height: 1.35; display: block }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .42rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap }
th { font-weight: 600; color: var(--soft); font-size: .82rem }
th:first-child, td:first-child { text-align: left; padding-left: 0 } tr.all td { font-weight: 650 }
svg { width: 100%; min-width: 40rem; height: auto; display: block; margin: .3rem 0 1rem }
svg text { fill: var(--ink); font-size: 13px } svg .whole { font-weight: 650 }
svg .axis { stroke: var(--line) } svg .zero { stroke: var(--soft) }
svg .soft { fill: var(--soft); font-size: 12px } svg .blur { fill: var(--blur) }
svg .base { fill: var(--base) } svg .better { fill: var(--good) } svg .worse { fill: var(--bad) }
svg .undecided { fill: var(--unsure) } svg .range { stroke: var(--ink); stroke-width: 1.5 }
svg .whisker { stroke-width: 2.5 } svg .whisker.better { stroke: var(--good) }
svg .whisker.worse { stroke: var(--bad) } svg .whisker.undecided { stroke: var(--unsure) }
.filter { border: 0; padding: 0; margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .4rem }
.filter label { border: 1px solid var(--line); border-radius: 99px; padding: .15rem .75rem;
  background: var(--card); font-size: .88rem; cursor: pointer }
.filter label:has(:checked) { background: var(--ink); color: var(--page);
  border-color: var(--ink) }
.filter label:has(:focus-visible) { outline: 2px solid var(--good); outline-offset: 2px }
.filter input { position: absolute; opacity: 0; pointer-events: none }
.item { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1.1rem; margin: .7rem 0 }
.item.lost { border-left: 4px solid var(--bad) } .item.won { border-left: 4px solid var(--good) }
.item > p { margin: 0 0 .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
.item > .foot { margin: .6rem 0 0; font-size: .8rem; color: var(--soft) }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem }
.sides h4 { margin: 0 0 .2rem; font-size: .78rem; font-weight: 600; color: var(--soft) }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 22rem;
  overflow-y: auto; font: 13px/1.5 ui-monospace, monospace }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0;
  font-size: .9rem } dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .82rem }
@media (max-width: 34rem) { body { padding: 1.4rem .9rem 3rem } h1 { font-size: 1.4rem }
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem }
  svg { min-width: 34rem } th, td { padding: .4rem .5rem } }
"""
