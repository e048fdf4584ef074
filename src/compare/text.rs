//! A comparison for people.

use super::Comparison;
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::{Display, Formatter, Result, Write};

/// Tensors of a table; all are in --json.
const TENSORS: usize = 40;

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "a        {}\nb        {}\n", self.a, self.b)?;
        if self.settings.is_empty() {
            writeln!(f, "settings the same")?;
        }
        for (at, (key, a, b)) in self.settings.iter().enumerate() {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not there".into());
            writeln!(
                f,
                "{} {key}: {} in a, {} in b",
                if at == 0 { "settings" } else { "        " },
                value(a),
                value(b)
            )?;
        }
        if self.rows > 0 && self.metrics.is_empty() {
            writeln!(f, "metrics  the same bits in {} rows", self.rows)?;
        }
        for (at, found) in self.metrics.iter().enumerate() {
            let value = |value: Option<f64>| value.map_or("not there".into(), |v| format!("{v:?}"));
            let (title, row) = (if at == 0 { "metrics" } else { "" }, found.row);
            let (a, b) = (value(found.a), value(found.b));
            writeln!(
                f,
                "{title:<8} {} {row} is the first that differs: {} is {a} in a, {b} in b",
                found.table, found.column
            )?;
        }
        match (&self.weights, self.compared.as_slice()) {
            (None, []) => writeln!(f, "weights  not compared: no step has a checkpoint in both"),
            (None, _) => writeln!(f, "weights  the same bits, moments too"),
            (Some(_), _) => self.weights_text(f),
        }?;
        let verdict = match (self.is_same(), self.settings.is_empty()) {
            (true, true) => "a and b are the same",
            (true, false) => "a and b computed the same under other settings",
            (false, _) => "a and b differ",
        };
        write!(f, "\n{verdict}")
    }
}

impl Comparison {
    fn weights_text(&self, f: &mut Formatter<'_>) -> Result {
        let Some(weights) = &self.weights else { return Ok(()) };
        let (a, b) = weights.steps;
        let steps = if a == b { format!("step {a}") } else { format!("step {a} in a and step {b} in b") };
        let before = weights.alike.map_or(String::new(), |step| format!("; those of step {step} are alike"));
        writeln!(f, "weights  the checkpoints of {steps} are the first that differ{before}")?;
        if let Some(first) = weights.tensors.first() {
            let index = first.index.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            writeln!(f, "         first in {}[{index}]: {:?} in a, {:?} in b", first.tensor, first.a, first.b)?;
        }
        for text in &weights.unmatched {
            writeln!(f, "         {text}")?;
        }
        if weights.tensors.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["tensor", "differ", "of", "largest |a-b|", "relative", "norm of a-b"]);
        for found in weights.tensors.iter().take(TENSORS) {
            let mut cells = vec![found.tensor.clone(), found.differing.to_string(), found.elements.to_string()];
            cells.extend([found.largest, found.largest_relative, found.norm].map(|value| format!("{value:.2e}")));
            table.add_row(cells);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        let mut text = format!("\n{table}\n");
        if weights.tensors.len() > TENSORS {
            writeln!(text, "and {} more tensors (--json has all)", weights.tensors.len() - TENSORS)?;
        }
        f.write_str(&text)
    }
}
