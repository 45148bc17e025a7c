//! Which crate may import which: the table in `ARCHITECTURE.md` against what cargo sees.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::run::cargo;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: std::path::PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: std::path::PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Absent for ordinary dependencies, `dev` for those of tests.
    kind: Option<String>,
    /// Present for those in the workspace.
    path: Option<String>,
}

/// Fails with every import that the table does not allow, and every crate it does not know.
pub(crate) fn check() -> anyhow::Result<()> {
    let text = cargo("metadata").args(["--no-deps", "--format-version", "1"]).output()?;
    let metadata: Metadata = serde_json::from_slice(&text).context("read cargo metadata")?;
    let page = metadata.workspace_root.join("ARCHITECTURE.md");
    let page = std::fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    let mistakes = compare(&parse_table(&page), &imports(&metadata)?);
    if mistakes.is_empty() { Ok(()) } else { bail!("import directions:\n  - {}", mistakes.join("\n  - ")) }
}

type Table = BTreeMap<String, BTreeSet<String>>;

/// Crate folder → folders of ours that it imports, tests included.
fn imports(metadata: &Metadata) -> anyhow::Result<Table> {
    let folder = |package: &Package| {
        let dir = package.manifest_path.parent().and_then(|dir| dir.file_name());
        dir.map(|name| name.to_string_lossy().into_owned()).context("a crate lies in a folder")
    };
    let mut folders = BTreeMap::new();
    for package in &metadata.packages {
        folders.insert(package.name.as_str(), folder(package)?);
    }
    let mut table = Table::new();
    for package in &metadata.packages {
        let ours =
            package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.as_deref() != Some("dev"));
        let ours = ours.filter_map(|d| folders.get(d.name.as_str()).cloned()).collect();
        table.insert(folder(package)?, ours);
    }
    Ok(table)
}

/// The rows of the table under "## Crates": first column the crate, last column what it may import.
fn parse_table(page: &str) -> Table {
    let section = page.split("## Crates").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut table = Table::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else { continue };
        table.insert(names(first).into_iter().next().unwrap_or_default(), names(last));
    }
    // "all host crates" stands for every crate that is no guest program, no test and no tool.
    let hosts: BTreeSet<String> = table
        .keys()
        .filter(|name| !["agent", "interpreter", "e2e", "xtask", "sandbar"].contains(&name.as_str()))
        .cloned()
        .collect();
    if let Some(allowed) = table.get_mut("sandbar") {
        *allowed = hosts;
    }
    table
}

/// What stands between backticks.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn compare(allowed: &Table, found: &Table) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (name, imports) in found {
        let Some(allowed) = allowed.get(name) else {
            mistakes.push(format!("{name} is missing in the table of ARCHITECTURE.md"));
            continue;
        };
        for import in imports.difference(allowed) {
            mistakes.push(format!("{name} imports {import}, which the table does not allow"));
        }
    }
    for name in allowed.keys().filter(|name| !found.contains_key(*name)) {
        mistakes.push(format!("{name} is in the table of ARCHITECTURE.md and nowhere else"));
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n## Crates\n| crate | one line | may import |\n|---|---|---|\n\
        | `model` | x | – |\n| `db` | rows in `SQL` | `model` |\n| `sandbar` | all | all host crates |\n## Next\n";

    fn found(rows: &[(&str, &[&str])]) -> Table {
        rows.iter()
            .map(|(name, imports)| ((*name).to_owned(), imports.iter().map(|i| (*i).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn what_the_table_allows_passes() {
        let found = found(&[("model", &[]), ("db", &["model"]), ("sandbar", &["db", "model"])]);
        assert_eq!(compare(&parse_table(PAGE), &found), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_direction_and_an_unknown_crate_are_named() {
        let found = found(&[("model", &["db"]), ("db", &[]), ("sandbar", &[]), ("extra", &[])]);
        assert_eq!(
            compare(&parse_table(PAGE), &found),
            [
                "extra is missing in the table of ARCHITECTURE.md",
                "model imports db, which the table does not allow"
            ]
        );
    }
}
