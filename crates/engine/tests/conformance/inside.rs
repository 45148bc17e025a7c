//! The program that runs in the guests of these tests: this very test binary, as a test that is ignored.
//!
//! It takes one command per connection on [`PORT`], a line of words, and answers with a line.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::exit;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pause};

/// Where it listens.
pub(crate) const PORT: u16 = 7000;

/// Path of the binary in the guest.
pub(crate) const PATH: &str = "/conformance";

/// First program and its arguments.
pub(crate) fn init() -> Vec<String> {
    [PATH, "inside::guest", "--exact", "--ignored", "--nocapture", "--test-threads=1"]
        .map(str::to_owned)
        .into()
}

#[test]
#[ignore = "runs in the guests of the other tests"]
fn guest() {
    let mut stdin = String::new();
    std::io::stdin().read_to_string(&mut stdin).unwrap();
    println!("inside\n");
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["stdin"] => stdin.clone(),
            ["env", name] => std::env::var(name).unwrap_or_default(),
            ["read", path] => read(path),
            ["write", path, text] => done(fs::write(path, text)),
            ["nproc"] => std::thread::available_parallelism().unwrap().to_string(),
            ["fill", path, mib] => fill(path, number(mib)),
            ["hog", mib] => hog(number(mib)),
            ["forks", count] => forks(number(count)),
            ["burn", millis] => burn(Duration::from_millis(number(millis))),
            ["on-term"] => {
                // SAFETY: the handler only ends the process.
                unsafe { signal(Signal::SIGTERM, SigHandler::Handler(end_on_term)) }.unwrap();
                "ok".to_owned()
            }
            ["exit", code] => {
                // What was printed must be seen outside.
                std::io::stdout().flush().unwrap();
                exit(code.parse().unwrap())
            }
            ["print", text] => {
                println!("{text}");
                "ok".to_owned()
            }
            other => format!("what is {other:?}?"),
        };
        // Whoever asked may be gone.
        let _ = writeln!(stream, "{}", answer.trim().replace('\n', "|"));
    }
}

/// Code with which it ends when asked to.
pub(crate) const CODE_ON_TERM: i32 = 9;

extern "C" fn end_on_term(_: i32) {
    // SAFETY: ends the process, which is allowed in a signal handler.
    unsafe { libc::_exit(CODE_ON_TERM) }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn done(result: std::io::Result<()>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "ok".to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

/// Writes a file; says how far it came.
fn fill(path: &str, mib: u64) -> String {
    let mut file = fs::File::create(path).unwrap();
    for written in 0..mib {
        if let Err(error) = file.write_all(&[1; 1 << 20]) {
            return format!("{written} {:?}", error.kind());
        }
    }
    format!("{mib} ok")
}

/// Uses memory in a process of its own; says how that ended.
fn hog(mib: u64) -> String {
    let work = || {
        let mut all = Vec::new();
        for _ in 0..mib {
            all.push(vec![1_u8; 1 << 20]);
        }
        exit(i32::from(all.is_empty()))
    };
    // SAFETY: the child only allocates and exits; the other threads of the harness hold no lock it needs.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => work(),
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, 0) => "had it all".to_owned(),
            other => format!("ended: {other:?}"),
        },
    }
}

/// Starts processes that only wait; says how many there could be.
fn forks(count: u64) -> String {
    let mut children = Vec::new();
    let mut answer = format!("{count} ok");
    for number in 0..count {
        // SAFETY: the child only waits.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => loop {
                pause();
            },
            Ok(ForkResult::Parent { child }) => children.push(child),
            Err(error) => {
                answer = format!("{number} {error:?}");
                break;
            }
        }
    }
    for child in children {
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
    }
    answer
}

/// Keeps four threads busy.
fn burn(time: Duration) -> String {
    let end = Instant::now() + time;
    let threads = [(); 4].map(|()| {
        std::thread::spawn(move || {
            let mut rounds = 0_u64;
            while Instant::now() < end {
                rounds = std::hint::black_box(rounds + 1);
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    "ok".to_owned()
}
