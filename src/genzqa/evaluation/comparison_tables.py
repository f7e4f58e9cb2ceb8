"""A comparison as tables: Markdown, CSV and LaTeX. The page is made in `genzqa.report.comparison`."""

from __future__ import annotations

import csv
import io

from genzqa.evaluation.comparison import Comparison, Measured, Pair, Published
from genzqa.evaluation.statistics import MEASURES
from genzqa.evaluation.tables import (
    NAMES,
    READING,
    cell,
    decimal,
    escaped,
    made_by,
    scripted,
    shown_figure,
    shown_items,
)
from genzqa.text import spreadsheet_cell

DIFFERENCES = (
    "Differences are of SRCC on the items that both models have scored, by a paired bootstrap, with a two-sided p. Many comparisons "
    "find a small p somewhere by chance."
)
PUBLISHED = "Published figures are as their sources print them, not measured here; preprocessing and fits may differ."


def comparison_markdown(compared: Comparison) -> str:
    """A table for each database and split, one by domain, and what the figures are."""
    models, databases = len(compared.results), len({block.database for block in compared.blocks})
    lines = [
        f"# {models} {'model' if models == 1 else 'models'} on {databases} {'database' if databases == 1 else 'databases'}"
    ]
    heads = ["system", "items", *NAMES.values()]
    if models > 1:
        heads.append(f"SRCC less that of {cell(compared.first)}")
    heads.append("source")
    for block in compared.blocks:
        lines += ["", f"## {cell(block.database)}, {block.split}", "", _row(heads), "|" + "---|" * len(heads)]
        for one in block.measured:
            against = [_against(one, compared.first)] if models > 1 else []
            figures = [shown_figure(one.agreed, name) for name in MEASURES]
            lines.append(_row([cell(one.model), shown_items(one.agreed), *figures, *against, "measured"]))
        for other in block.published:
            figures = [other.figures.get(name, "-") for name in MEASURES]
            against = ["-"] if models > 1 else []
            lines.append(_row([cell(other.system), "-", *figures, *against, cell(_source(other))]))
    lines += _domain_lines(compared)
    lines += ["", READING]
    if models > 1:
        lines += ["", DIFFERENCES]
    if any(block.published for block in compared.blocks):
        lines += ["", PUBLISHED]
    lines += [""] + [
        f"- {cell(name)}: {made_by([one.model for one in found])}" for name, found in compared.results.items()
    ]
    return "\n".join(lines) + "\n"


def comparison_csv(compared: Comparison) -> str:
    """One line for each model or published system on each database; what is not known is empty.

    ``kind`` is ``measured`` or ``published``. The columns from ``against`` to ``p`` are about the difference of SRCC from that of
    the first model.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    bounds = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    writer.writerow(["system", "kind", "database", "split", "items", "failed", *bounds, "against", "common_items", "difference",
                     "difference_low", "difference_high", "p", "trained_on", "source"])  # fmt: skip
    for block in compared.blocks:
        place = [spreadsheet_cell(block.database), block.split]
        for one in block.measured:
            figures: list[str] = []
            for name in MEASURES:
                found = one.agreed.figures.get(name)
                figures += [decimal(value) for value in (found.value, found.low, found.high)] if found else [""] * 3
            writer.writerow([spreadsheet_cell(one.model), "measured", *place, one.agreed.items, one.agreed.failed, *figures,
                             *_against_cells(one.against), "", ""])  # fmt: skip
        for other in block.published:
            figures = [text for name in MEASURES for text in (other.figures.get(name, ""), "", "")]
            writer.writerow([spreadsheet_cell(other.system), "published", *place, "", "", *figures, *_against_cells(None),
                             other.trained_on, other.source])  # fmt: skip
    return buffer.getvalue()


def comparison_latex(compared: Comparison) -> str:
    """One ``tabular``: bounds as sub- and superscript, published systems with the number of their source, which stands below."""
    several = len(compared.results) > 1
    columns = 6 + several
    heads = ["System", "Items", *NAMES.values()] + ([rf"SRCC less {escaped(compared.first)}"] if several else [])
    lines = [rf"\begin{{tabular}}{{lr{'c' * (columns - 2)}}}", r"\hline", rf"{' & '.join(heads)} \\"]
    sources: dict[str, int] = {}
    for block in compared.blocks:
        title = f"{escaped(block.database)}, {escaped(block.split)}"
        lines += [r"\hline", rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{title}}}}} \\"]
        for one in block.measured:
            cells = [scripted(one.agreed.figures.get(name), 2 if name == "rmse" else 3) for name in MEASURES]
            against = [_scripted_difference(one, compared.first)] if several else []
            lines.append(rf"{' & '.join([escaped(one.model), str(one.agreed.items), *cells, *against])} \\")
        for other in block.published:
            number = sources.setdefault(_source(other), len(sources) + 1)
            cells = [other.figures.get(name, "--") for name in MEASURES]
            against = ["--"] if several else []
            lines.append(rf"{' & '.join([f'{escaped(other.system)}$^{{{number}}}$', '--', *cells, *against])} \\")
    lines.append(r"\hline")
    lines += [rf"\multicolumn{{{columns}}}{{p{{0.9\linewidth}}}}{{\footnotesize $^{{{number}}}$ {escaped(source)}}} \\"
              for source, number in sources.items()]  # fmt: skip
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _source(other: Published) -> str:
    return f"published: {other.source}; trained on {other.trained_on}"


def _against(one: Measured, first: str) -> str:
    if one.against is None:
        return "first" if one.model == first else "-"
    found = one.against.difference
    common = "" if one.against.items == one.agreed.items else f", {one.against.items} items"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p {found.p:.3f}{common}"


def _against_cells(pair: Pair | None) -> list[str]:
    if pair is None:
        return [""] * 6
    found = pair.difference
    numbers = [decimal(value) for value in (found.value, found.low, found.high, found.p)]
    return [spreadsheet_cell(pair.other), str(pair.items), *numbers]


def _scripted_difference(one: Measured, first: str) -> str:
    if one.against is None:
        return "first" if one.model == first else "--"
    found = one.against.difference
    return f"${found.value:+.3f}_{{{found.low:+.3f}}}^{{{found.high:+.3f}}}$, $p={found.p:.3f}$"


def _domain_lines(compared: Comparison) -> list[str]:
    domains = sorted({domain for found in compared.domains.values() for domain in found})
    if not domains:
        return []
    lines = ["", _row(["mean SRCC by domain", *map(cell, compared.results)]), "|---|" + "---|" * len(compared.results)]
    for domain in domains:
        means = [found.get(domain) for found in compared.domains.values()]
        cells = [f"{mean[1]:.3f} ({', '.join(map(cell, mean[0]))})" if mean else "-" for mean in means]
        lines.append(_row([domain, *cells]))
    return lines
