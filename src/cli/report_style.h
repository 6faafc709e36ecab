// report_style.h - the style sheet of report pages.
#pragma once

#include <string_view>

namespace mezzo::cli {

inline constexpr std::string_view kReportStyle = R"css(
:root{color-scheme:light dark;--page:#fcfcfb;--text:#1d1c1a;--soft:#5c5a55;--rule:#e2e0da;--panel:#f4f3ef;
--s0:#4a4945;--s1:#1f6fd0;--s2:#147d4e;--s3:#c2410c;--s4:#7c4dbe;--s5:#9a6b00;
--c0:#1f6fd0;--c1:#86b6ee;--c2:#c2410c;--c3:#e3a33c;--c4:#147d4e;--c5:#7c4dbe;--c6:#94928a;--c7:#cfccc2}
@media(prefers-color-scheme:dark){:root{--page:#171716;--text:#ecebe6;--soft:#a9a79f;--rule:#34332f;--panel:#21201e;
--s0:#cfcdc4;--s1:#6aa9f4;--s2:#4fbd88;--s3:#f2895a;--s4:#b795ee;--s5:#dcb052;
--c0:#4a90e2;--c1:#2b5c94;--c2:#e0693a;--c3:#b98325;--c4:#37a06e;--c5:#9a74d8;--c6:#7d7b74;--c7:#4b4943}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:56rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .75rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.75rem 0 .5rem}
h3{font-size:1rem;margin:1.75rem 0 .25rem}
p{margin:.5rem 0;max-width:46rem}
.soft,figcaption,footer{color:var(--soft)}
figure{margin:1rem 0 0}
figcaption{font-size:.9rem;margin-top:.4rem}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-family:inherit;font-size:13px;fill:var(--soft)}
svg text.name{fill:var(--text);font-size:15px}
.grid{stroke:var(--rule);fill:none}.axis{stroke:var(--soft);fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke:var(--page);stroke-width:1}
.line.s0{stroke:var(--s0);stroke-width:6;stroke-opacity:.3}.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2);stroke-dasharray:1 6;stroke-linecap:round;stroke-width:3.5}.line.s3{stroke:var(--s3);stroke-dasharray:7 4}.line.s4{stroke:var(--s4)}.line.s5{stroke:var(--s5)}
.mark.s0{fill:var(--s0)}.mark.s1{fill:var(--s1)}.mark.s2{fill:var(--s2)}.mark.s3{fill:var(--s3)}.mark.s4{fill:var(--s4)}.mark.s5{fill:var(--s5)}
rect{stroke:var(--page);stroke-width:1}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c5{fill:var(--c5)}.c6{fill:var(--c6)}.c7{fill:var(--c7)}
ul.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.25rem;margin:.75rem 0 .25rem;padding:0;font-size:.95rem}
ul.legend svg{display:inline-block;width:1.7rem;height:.8rem;margin-right:.45rem;vertical-align:-.05rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.95rem;margin:.75rem 0}
th,td{padding:.32rem .9rem .32rem 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal;min-width:3.5rem}
tbody th{font-weight:400}tbody tr.main th,tbody tr.main td{font-weight:600}tbody th.sub{padding-left:1.1rem;color:var(--soft)}
table.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}th.text,td.text{text-align:left;white-space:normal;min-width:12rem}table.facts th{color:var(--soft);font-weight:400;vertical-align:top}
table.heat{font-size:.8rem}table.heat td{padding:.15rem .4rem;background:color-mix(in srgb,var(--s3) calc(var(--heat,0)*70%),transparent)}
table.heat th{padding:.15rem .6rem .15rem 0}table.heat thead th{min-width:0;padding:.15rem .4rem}
table.heat th:first-child{position:sticky;left:0;background:var(--page);padding-left:0}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft);font-size:.95rem}
pre{background:var(--panel);border-radius:.5rem;padding:1rem;white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace}
footer{margin-top:3rem;font-size:.9rem;border-top:1px solid var(--rule);padding-top:.75rem}
@media(max-width:40rem){main{padding:1.25rem 1rem 3rem}svg text{font-size:24px}svg text.name{font-size:25px}.line{stroke-width:3}h1{font-size:1.45rem;overflow-wrap:anywhere}
table{font-size:.78rem;line-height:1.35}th,td{padding-right:.4rem;white-space:normal}th:last-child,td:last-child{padding-right:0}thead th{min-width:0}
table.heat{font-size:.72rem}table.heat td,table.heat thead th{padding:.15rem .25rem}tbody th.sub{padding-left:.6rem}table.facts th{min-width:4.5rem}th.text,td.text{min-width:0}}
@media print{details{display:block}}
)css";

}  // namespace mezzo::cli
