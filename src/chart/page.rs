//! One self-contained HTML page of texts, tables and pictures.

/// Text as HTML shows it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Colours of the pictures are replaced where the reader's system is dark; on paper nothing is.
const STYLE: &str = "
:root { color-scheme: light dark; --paper: #ffffff; --ink: #222831; --pale: #78808a; --grid: #e4e7eb; --blue: #005faf }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e6e9ed; --pale: #9aa2ac; --grid: #333941; --blue: #5aa9e6 }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2rem auto; padding: 0 1rem }
pre { overflow-x: auto; font-size: 13px; line-height: 1.35 }
table { border-collapse: collapse; font-size: 14px; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--grid) }
th { font-weight: 600 }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
.wide { overflow-x: auto }
.pale { color: var(--pale) }
svg { display: block; max-width: 100%; height: auto; margin: 1.5rem 0 }
svg [fill=\"#FFFFFF\"] { fill: var(--paper) }
svg [fill=\"#222831\"] { fill: var(--ink) }
svg [fill=\"#78808A\"] { fill: var(--pale) }
svg [fill=\"#E4E7EB\"] { fill: var(--grid) }
svg [fill=\"#005FAF\"] { fill: var(--blue) }
svg [stroke=\"#222831\"] { stroke: var(--ink) }
svg [stroke=\"#78808A\"] { stroke: var(--pale) }
svg [stroke=\"#E4E7EB\"] { stroke: var(--grid) }
svg [stroke=\"#005FAF\"] { stroke: var(--blue) }
@media print { svg, table { break-inside: avoid } body { margin: 0; max-width: none } }
";

/// The page; `body` is HTML.
pub fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         {body}\n</body>\n</html>\n"
    )
}

/// An SVG as it may stand in a page: without its declaration.
pub fn inline(svg: &str) -> &str {
    svg.find("<svg").map_or("", |start| &svg[start..])
}

/// A table of texts, the first row its head.
pub fn table(rows: &[Vec<String>]) -> String {
    let row = |(index, cells): (usize, &Vec<String>)| {
        let tag = if index == 0 { "th" } else { "td" };
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.iter().enumerate().map(row).collect();
    format!("<div class=\"wide\"><table>\n{rows}</table></div>\n")
}
