"""A bar chart as SVG: one horizontal bar a contender, the range over the rounds as a thin line on it."""

from xml.sax.saxutils import escape

OURS, THEIRS, INK, GRID = "#1b7f5c", "#9aa4b2", "#1f2933", "#dde2e8"
LABEL, PLOT, VALUE, BAR, GAP, TOP = 250, 470, 120, 20, 8, 44


def rounded(x):
    """Three significant digits, no exponent."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def ticks(largest):
    """Four to eight round numbers from 0 to just above `largest`."""
    step = 10.0 ** -6
    while largest / step > 8:
        for factor in (2, 2.5, 2):  # 1, 2, 5, 10
            step *= factor
            if largest / step <= 8:
                break
    count = int(largest / step) + 1
    return [i * step for i in range(count + 1)]


def bars(title, unit, entries):
    """entries: (label, median, least, most, whether it is ours); the text of an SVG file."""
    marks = ticks(max(most for _, _, _, most, _ in entries))
    scale = PLOT / marks[-1]
    height = TOP + len(entries) * (BAR + GAP) + 30
    width = LABEL + PLOT + VALUE
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="12" y="22" font-size="15" font-weight="bold" fill="{INK}">{escape(title)}</text>']
    bottom = height - 26
    for mark in marks:
        x = LABEL + mark * scale
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{GRID}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="{INK}">{mark:.10g}</text>')
    out.append(f'<text x="{width - 12}" y="{bottom + 16}" text-anchor="end" fill="{INK}">{escape(unit)}</text>')
    for i, (label, median, least, most, ours) in enumerate(entries):
        y = TOP + i * (BAR + GAP)
        middle = y + BAR / 2
        weight = ' font-weight="bold"' if ours else ""
        out.append(f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end" fill="{INK}"{weight}>{escape(label)}</text>')
        out.append(f'<rect x="{LABEL}" y="{y}" width="{median * scale:.1f}" height="{BAR}" fill="{OURS if ours else THEIRS}"/>')
        if most > least:
            out.append(f'<line x1="{LABEL + least * scale:.1f}" y1="{middle}" x2="{LABEL + most * scale:.1f}" y2="{middle}" stroke="{INK}" stroke-width="1.5"/>')
        out.append(f'<text x="{LABEL + most * scale + 6:.1f}" y="{middle + 4}" fill="{INK}">{rounded(median)}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
