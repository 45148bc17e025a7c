//! How results are shown: tables to people, JSON to programs, progress and notes beside the results.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// `--output`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
}

impl Format {
    /// What was asked for; else a table on a terminal and JSON in a pipe.
    pub(crate) fn choose(asked: Option<Self>) -> Self {
        asked.unwrap_or(if std::io::stdout().is_terminal() { Self::Table } else { Self::Json })
    }
}

/// One line beside the result, on standard error.
pub(crate) fn note(line: &str) {
    // Nobody reads it any more: the work goes on.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line of the result, on standard output.
pub(crate) fn line(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// A result as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Rows under a heading, each column as wide as its widest cell.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> std::io::Result<()> {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    print(heading)?;
    for row in rows {
        print(std::array::from_fn(|column| row[column].as_str()))?;
    }
    Ok(())
}
