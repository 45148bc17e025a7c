//! The agent inside a sandbox: the envd protocol on port 49983, process 1, `sudo`.
//!
//! One static binary. Started as `sudo` (a link to it) it is the shim of [`sudo`], else the agent:
//!
//! ```text
//!  boot line (stdin) ─▶ guest ◀── /init
//!                         │
//!  request ─▶ route ──────┼─▶ process ──▶ reaper ──▶ child
//!                         ├─▶ filesystem, files
//!                         └─▶ control
//! ```
//!
//! It runs as root and trusts nobody inside: what a program in the guest sends here has no more rights than what
//! comes from outside.

mod accounts;
mod auth;
mod body;
mod boot;
mod cgroup;
mod child;
mod connect;
mod control;
mod cors;
mod files;
mod filesystem;
mod first;
mod forward;
mod guest;
mod metadata;
mod paths;
mod process;
mod question;
mod reaper;
mod route;
mod serve;
mod sudo;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use nix::sys::signal::Signal;
use sandbar_wire::envd::{PORT, VERSION};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::guest::Guest;
use crate::reaper::Children;
use crate::route::Routes;

/// The in-sandbox agent.
#[derive(Debug, clap::Parser)]
#[command(name = "sandbar-agent", version = VERSION, disable_version_flag = true)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))]
    listen: SocketAddr,
    /// The guest's address that servers on loopback are made reachable at.
    #[arg(long, default_value_t = IpAddr::from(Ipv4Addr::new(169, 254, 0, 21)))]
    forward_address: IpAddr,
    /// Read one line from standard input first: the control secret, and facts about the guest.
    #[arg(long)]
    control_from_stdin: bool,
    /// Write the port here once it is bound.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// Print the version and exit.
    #[arg(long, short = 'V')]
    version: bool,
}

fn main() -> anyhow::Result<()> {
    if let Some(other) = std::env::args_os().next().and_then(|argv0| sudo::role(&argv0)) {
        other();
    }
    let arguments = Arguments::parse();
    if arguments.version {
        #[expect(clippy::print_stdout, reason = "this is what was asked for")]
        {
            println!("{VERSION}");
        }
        return Ok(());
    }
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SANDBAR_AGENT_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    boot::hide_inherited_descriptors();
    let boot = arguments.control_from_stdin.then(boot::read_control_line).transpose()?;
    if first::is_first() {
        first::prepare_mounts();
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    boot::write_run_dir(boot.is_some()).context("write run directory")?;
    let guest = Arc::new(Guest::new(boot));
    let children = Children::watched().context("start reaper")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("agent")
        .enable_all()
        .build()
        .context("start runtime")?;
    runtime.block_on(run(&arguments, guest, children.clone()))?;

    if first::is_first() {
        first::end_all();
    } else {
        for pid in children.pids() {
            let _ = children.signal(pid, Signal::SIGKILL); // gone already is what is wanted
        }
    }
    // Not waiting for tasks: nothing that they could still do matters without the guest.
    runtime.shutdown_background();
    Ok(())
}

/// Serves until a signal asks to end.
async fn run(arguments: &Arguments, guest: Arc<Guest>, children: Children) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("listen on {}", arguments.listen))?;
    let port = listener.local_addr().context("learn own address")?.port();
    if let Some(path) = &arguments.port_file {
        // Under another name first: who waits for the file must find the whole number in it.
        let next = path.with_extension("next");
        std::fs::write(&next, port.to_string())
            .and_then(|()| std::fs::rename(&next, path))
            .context("write port file")?;
    }
    tracing::info!(port, version = VERSION, "agent is listening");
    let stop = CancellationToken::new();
    let sudo = sudo::serve(guest.clone(), children.clone());
    let forwarding = forward::forward(arguments.forward_address, port);
    let routes = Arc::new(Routes::new(guest, children));
    let serving = serve::serve(listener, routes, stop.clone());
    tokio::select! {
        ((), (), ()) = async { tokio::join!(serving, sudo, forwarding) } => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    Ok(())
}
