//! Builds every stock template into an artifacts directory and prints their layers.
//!
//! `cargo run -p sandbar-artifacts --example build-base -- <dir>`, as root.

use std::io::{self, Write};

use camino::Utf8PathBuf;
use sandbar_artifacts::{BuildOptions, LayerStore, Reporter, ensure_runsc, stock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir: Utf8PathBuf = std::env::args().nth(1).ok_or("which directory?")?.into();
    let report = Reporter::new(|news| {
        // Nobody listens any more; the build goes on.
        let _ = writeln!(io::stderr(), "{}: {}", news.step, news.line);
    });
    let store = LayerStore::open(&dir)?;
    let options = BuildOptions::default();
    let mut out = io::stdout();
    for name in stock::names() {
        let image = stock::ensure(&store, name, &options, &report).await?;
        for layer in &image.layers {
            writeln!(out, "{name} {}", store.path(layer))?;
        }
    }
    let runsc = ensure_runsc(&dir.join("bin"), &options.mirrors, &report).await?;
    writeln!(out, "runsc {runsc}")?;
    Ok(())
}
