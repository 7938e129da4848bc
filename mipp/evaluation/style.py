"""Looks of pages of figures: light, dark, on a telephone and on paper."""

__all__ = ["STYLE"]

#: classes are those of :mod:`mipp.evaluation.html` and :mod:`mipp.evaluation.svg`
STYLE = """
:root{color-scheme:light dark;--paper:#fdfdfc;--ink:#1c2026;--faint:#5b636d;--rule:#d8dbe0;--panel:#f1f3f5;
--right:#1a7f4b;--wrong:#b3450f;--s0:#2457a6;--s1:#b3450f;--s2:#1a7f4b;--s3:#8a3ea8;--s4:#8a6d00;--s5:#4a5560}
@media (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e6e8ea;--faint:#a3abb5;--rule:#383e46;--panel:#1f242a;
--right:#57c48d;--wrong:#ff9d63;--s0:#7fb0ff;--s1:#ff9d63;--s2:#57c48d;--s3:#d49bf0;--s4:#e0c04c;--s5:#b5bdc7}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem 1rem 3rem;max-width:68rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0 .4rem}h2{font-size:1.2rem;margin:2.2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}p{margin:.4rem 0;max-width:48rem}.faint{color:var(--faint)}
.notice{border-left:4px solid var(--wrong);background:var(--panel);padding:.5rem .8rem;margin:.6rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}
.cards div{background:var(--panel);border-radius:.5rem;padding:.55rem .8rem}
.cards dt,.cards dd{margin:0}.cards dt{color:var(--faint);font-size:.85rem}.cards dd{font-size:1.45rem;line-height:1.3}
.cards dd small{display:block;font-size:.8rem;color:var(--faint)}dl{margin:0}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--faint);padding:.2rem 0;caption-side:top}
th,td{padding:.28rem .7rem .28rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th{font-weight:600;overflow-wrap:normal}td.n,th.n{text-align:right}td.n{white-space:nowrap}th{vertical-align:bottom}
th.n{min-width:4rem}
td:not(.n){min-width:8.5rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.2rem}
figure{margin:.6rem 0;min-width:0}figcaption{font-size:.92rem;margin-bottom:.3rem}
svg{display:block;width:100%;max-width:36rem;height:auto;font-size:12px}
svg text{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.grid{stroke:var(--rule)}.axis,.spread{stroke:var(--ink)}.spread{stroke-width:1.4}
.bar{fill:var(--s0)}.bar.less{fill:var(--s1);fill-opacity:.35;stroke:var(--s1)}
.mark{fill:var(--paper);stroke:var(--ink);stroke-width:1.4}
.line{fill:none;stroke-width:2}.point{stroke-width:1.5}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1);stroke-dasharray:7 4}.s2{stroke:var(--s2);stroke-dasharray:2 3}
.s3{stroke:var(--s3);stroke-dasharray:10 3 2 3}.s4{stroke:var(--s4);stroke-dasharray:4 2}
.s5{stroke:var(--s5);stroke-dasharray:1 2}.point{stroke-dasharray:none}
.point.s0{fill:var(--s0)}.point.s1{fill:var(--s1)}.point.s2{fill:var(--s2)}.point.s3{fill:var(--s3)}
.point.s4,.point.s5{fill:var(--paper)}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--faint);font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(5.7rem,1fr));gap:.6rem;margin:.4rem 0 1.2rem;
padding:0;list-style:none}
.tiles li{font-size:.78rem;line-height:1.3;min-width:0}
.tiles img,.tiles .gone{display:block;width:100%;height:5.6rem;object-fit:contain;background:var(--panel);
border:3px solid var(--rule);border-radius:.4rem;margin-bottom:.2rem}
.tiles .gone{display:flex;align-items:center;justify-content:center;color:var(--faint);text-align:center;padding:.3rem;
overflow:hidden}
.tiles .query img,.tiles .query .gone{border-color:var(--s0);border-style:double}
.tiles .right img,.tiles .right .gone{border-color:var(--right)}
.tiles .wrong img,.tiles .wrong .gone{border-color:var(--wrong);border-style:dashed}
.tiles b{display:block}.right b{color:var(--right)}.wrong b{color:var(--wrong)}
@media (max-width:34rem){body{padding:.8rem .7rem 2rem}.tiles{grid-template-columns:repeat(3,1fr)}
table{font-size:.84rem}th,td{padding-right:.5rem}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--faint:#333;--rule:#bbb;--panel:#f4f4f4;
--right:#1a7f4b;--wrong:#b3450f;--s0:#2457a6;--s1:#b3450f;--s2:#1a7f4b;--s3:#8a3ea8;--s4:#8a6d00;--s5:#4a5560}
body{max-width:none;font-size:11pt}figure,.tiles li,tr{break-inside:avoid}h2,h3{break-after:avoid}
.scroll{overflow:visible}.tiles{grid-template-columns:repeat(9,1fr);gap:.3rem}
details:not([open]){display:none}*{print-color-adjust:exact}}
"""
