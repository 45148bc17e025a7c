//! The `nft` program: applies scripts and lists what is there, in the namespace of the calling thread.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where distributions put it; `PATH` is not ours.
const PLACES: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];

/// A transaction takes about 20 ms; one that takes this long never ends.
const DEADLINE: Duration = Duration::from_secs(10);

/// Of what `nft` says about an error, in bytes.
const MESSAGE_MAX: usize = 2048;

/// Why `nft` did not do as it was told. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// It is not installed.
    #[error("nft not found in {}; install the package nftables", PLACES.join(", "))]
    Missing,
    /// It could not be started or talked to.
    #[error("run {program}")]
    Run { program: &'static str, source: io::Error },
    /// It did not end in time and was killed.
    #[error("nft did not end within {} s", DEADLINE.as_secs())]
    Late,
    /// It refused.
    #[error("nft refused: {message}")]
    Refused { message: String },
}

/// The program, found once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nft {
    program: &'static str,
}

impl Nft {
    /// Looks for the program.
    pub(crate) fn find() -> Result<Self, NftError> {
        let program = PLACES.into_iter().find(|place| Path::new(place).exists()).ok_or(NftError::Missing)?;
        Ok(Self { program })
    }

    /// Applies a script as one transaction.
    pub(crate) async fn apply(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], script).await.map(drop)
    }

    /// The names of all tables in family `inet`.
    pub(crate) async fn inet_tables(&self) -> Result<Vec<String>, NftError> {
        let list = self.run(&["list", "tables", "inet"], "").await?;
        Ok(list.lines().filter_map(|line| line.strip_prefix("table inet ")).map(str::to_owned).collect())
    }

    /// All chains, as nft's JSON.
    pub(crate) async fn chains(&self) -> Result<String, NftError> {
        self.run(&["--json", "list", "chains"], "").await
    }

    async fn run(&self, args: &[&str], input: &str) -> Result<String, NftError> {
        let failed = |source| NftError::Run { program: self.program, source };
        let mut child = Command::new(self.program)
            .args(args)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let talk = async {
            // It reads all of its input before it says anything, so the two pipes cannot block each other. A
            // child that ended early says why on its standard error.
            match stdin.write_all(input.as_bytes()).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => drop(stdin),
            }
            child.wait_with_output().await
        };
        let output =
            tokio::time::timeout(DEADLINE, talk).await.map_err(|_| NftError::Late)?.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = &output.stderr[..output.stderr.len().min(MESSAGE_MAX)];
        Err(NftError::Refused { message: String::from_utf8_lossy(message).trim().to_owned() })
    }
}
