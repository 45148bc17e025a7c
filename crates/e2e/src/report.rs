//! What the scripts report: one JSON line for each check.

use std::fmt::Write;

use anyhow::{Result, bail};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Line {
    check: String,
    ok: bool,
    detail: String,
}

/// Compares what a script printed with the checks it had to run: each ran once, in order, and passed.
///
/// # Errors
/// With every check that failed, and those that did not run.
pub fn check_report(stdout: &str, want: &[&str]) -> Result<()> {
    let mut problems = String::new();
    let mut ran = Vec::new();
    for text in stdout.lines() {
        match serde_json::from_str::<Line>(text) {
            Ok(line) => {
                if !line.ok {
                    write!(problems, "\n-- {} failed:\n{}", line.check, line.detail.trim_end())?;
                }
                ran.push(line.check);
            }
            Err(_) => write!(problems, "\n-- stray output: {text}")?,
        }
    }
    if ran != want {
        let missing: Vec<_> = want.iter().filter(|check| !ran.iter().any(|name| name == *check)).collect();
        write!(problems, "\n-- did not run: {missing:?}")?;
    }
    if problems.is_empty() { Ok(()) } else { bail!("{problems}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = r#"{"check":"a","ok":true,"detail":"","millis":3}"#;

    #[test]
    fn all_checks_must_have_run_and_passed() {
        assert!(check_report(PASSED, &["a"]).is_ok());
        assert!(check_report(PASSED, &["a", "b"]).unwrap_err().to_string().contains(r#"did not run: ["b"]"#));
        let failed = r#"{"check":"a","ok":false,"detail":"why"}"#;
        assert!(check_report(failed, &["a"]).unwrap_err().to_string().contains("a failed:\nwhy"));
        assert!(check_report("noise", &[]).is_err());
    }
}
