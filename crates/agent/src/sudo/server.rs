//! The agent's side: looks who asks, and starts a session for those who may.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

use super::message::{Line, ToShim};
use super::{SESSION_NAME, SOCKET};
use crate::accounts::{Accounts, User};
use crate::child::{Identity, Launch, Session};
use crate::guest::Guest;
use crate::reaper::Children;

/// Groups whose members may. Source: sudoers of Debian (`sudo`) and of others (`wheel`).
const GROUPS: [&str; 2] = ["sudo", "wheel"];

/// The sandbox's user may, whatever its image says about groups.
const SANDBOX_USER: &str = "user";

/// Pause after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether a user may run anything as anybody.
pub(super) fn may(user: &User, accounts: &Accounts) -> bool {
    user.uid == 0 || user.name == SANDBOX_USER || GROUPS.iter().any(|group| accounts.is_member(user, group))
}

/// Takes requests as long as the agent runs. Without the socket there is no `sudo`, and nothing else is lost.
pub(crate) async fn serve(guest: Arc<Guest>, children: Children) {
    let listener = match listen() {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "sudo is not available");
            return;
        }
    };
    let requests = TaskTracker::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (guest, children) = (guest.clone(), children.clone());
                requests.spawn_blocking(move || {
                    if let Err(error) = answer(stream, &guest, &children) {
                        tracing::debug!(%error, "sudo request ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "sudo request was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn listen() -> io::Result<UnixListener> {
    let socket = Path::new(SOCKET);
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn answer(stream: UnixStream, guest: &Guest, children: &Children) -> io::Result<()> {
    let caller = stream.peer_cred()?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let accounts = Accounts::load();
    let user = accounts.user_of(caller.uid());
    if caller.uid() != 0 && !user.is_some_and(|user| may(user, &accounts)) {
        let name = accounts.user_name(caller.uid());
        return Line::new(stream).send(&ToShim::Refused(format!("{name} is not in the sudoers file.")));
    }
    let program = own_program();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let cgroup = guest.settings().pids_cgroup.clone();
    let launch = Launch {
        program: program.as_os_str(),
        argv: &[OsString::from(SESSION_NAME)],
        envs: &[],
        cwd: OsStr::new("/"),
        identity: &Identity { uid: 0, gid: 0, groups: vec![0] },
        umask: 0o022,
        session: Session::Inherited,
        stdio: [stream.as_fd(), null.as_fd(), null.as_fd()],
        cgroup_procs: cgroup.as_ref().map(|cgroup| cgroup.procs.as_c_str()),
    };
    match children.spawn(&launch) {
        Ok(_) => Ok(()), // its end is told to the shim by itself
        Err(error) => {
            tracing::warn!(%error, "sudo session did not start");
            Line::new(stream).send(&ToShim::Refused("unable to start a session".to_owned()))
        }
    }
}

/// This binary, even when its file was replaced or removed meanwhile.
fn own_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}
