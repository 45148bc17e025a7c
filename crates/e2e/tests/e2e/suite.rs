//! How a test gets its server.

use std::sync::{Mutex, PoisonError, RwLock};

use anyhow::{Context, Result};
use libtest_mimic::{Failed, Trial};
use sandbar_e2e::Server;

/// The server of all tests that do not need one for themselves. Readers use it; the writer starts and ends it.
static SHARED: RwLock<Option<Server>> = RwLock::new(None);
/// Why it could not be started: the other tests need not try again.
static BROKEN: Mutex<Option<String>> = Mutex::new(None);

/// A test on the shared server. It must not change what others see.
pub(crate) fn shared(name: &str, body: impl AsyncFnOnce(&Server) -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        start_shared_server()?;
        let guard = SHARED.read().unwrap_or_else(PoisonError::into_inner);
        let server = guard.as_ref().expect("it was started above and is ended after the last test");
        block_on(body(server))
    })
}

/// A test with a server for itself, which must come to a clean end after it.
pub(crate) fn own(name: &str, body: impl AsyncFnOnce(&mut Server) -> Result<()> + Send + 'static) -> Trial {
    own_with(name, "", body)
}

/// [`own`], with these lines in the server's settings file.
pub(crate) fn own_with(
    name: &str,
    settings: &'static str,
    body: impl AsyncFnOnce(&mut Server) -> Result<()> + Send + 'static,
) -> Trial {
    Trial::test(name, move || {
        let mut server = Server::start_with(settings).map_err(failed)?;
        block_on(body(&mut server))?;
        server.stop().context("end of the server").map_err(failed)
    })
}

fn block_on(body: impl Future<Output = Result<()>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(body).map_err(failed)
}

fn failed(error: anyhow::Error) -> Failed {
    let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
    Failed::from(causes.join("\ncaused by: "))
}

fn start_shared_server() -> Result<(), Failed> {
    if SHARED.read().unwrap_or_else(PoisonError::into_inner).is_some() {
        return Ok(());
    }
    let mut shared = SHARED.write().unwrap_or_else(PoisonError::into_inner);
    let mut broken = BROKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = broken.as_ref() {
        return Err(Failed::from(reason));
    }
    if shared.is_none() {
        match Server::start() {
            Ok(server) => *shared = Some(server),
            Err(error) => {
                *broken = Some(format!("there is no server: {error}"));
                return Err(failed(error));
            }
        }
    }
    Ok(())
}

/// Ends the shared server; whether nothing of it is left and its log has no complaints.
#[expect(clippy::print_stderr, reason = "what the test program says is its result")]
pub(crate) fn stop_shared_server() -> bool {
    let Some(server) = SHARED.write().unwrap_or_else(PoisonError::into_inner).take() else {
        return true;
    };
    match server.stop() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("\nthe shared server did not come to a clean end: {error:#}");
            false
        }
    }
}
