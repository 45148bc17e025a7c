//! The states of a sandbox on its node, and which follows which. Pure: no clock, no I/O.
//!
//! ```text
//!  Starting ──ready──▶ Running
//!      │ fail, exit       │ exit
//!      ├───── kill ───────┤
//!      ▼                  ▼
//!   Stopping ─released─▶ Stopped
//! ```

use crate::RunId;

/// Why a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Somebody asked for it.
    Requested,
    /// Its time was up.
    Expired,
    /// Its engine or agent ended by itself.
    Exited,
    /// It could not be started.
    StartFailed,
    /// The host or the server went away with it.
    Lost,
}

/// Where a sandbox is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The steps of the start are being done.
    Starting,
    /// The agent answers.
    Running {
        /// This run.
        run: RunId,
    },
    /// What it holds is being given back.
    Stopping(StopReason),
    /// Nothing of it is left on the host.
    Stopped(StopReason),
}

/// What can happen to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// All steps of the start are done.
    Ready {
        /// The run that began.
        run: RunId,
    },
    /// A step of the start failed.
    StartFailed,
    /// The engine ended without being asked.
    EngineExited,
    /// It shall end, for this reason.
    Kill(StopReason),
    /// Everything it held was given back.
    Released,
}

/// The one thing to do about a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Give back everything the sandbox holds, in reverse order, then say [`Event::Released`].
    Release,
}

/// Why an event is not possible now. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The sandbox has ended.
    #[error("sandbox has ended")]
    Gone,
    /// Not in this state.
    #[error("not possible while the sandbox is {0}")]
    NotWhile(&'static str),
}

impl State {
    /// The state after `event`, and the one thing to do about it. On [`Refused`] nothing has changed.
    pub fn apply(&self, event: Event) -> Result<(State, Effect), Refused> {
        match (self, event) {
            (Self::Starting, Event::Ready { run }) => Ok((Self::Running { run }, Effect::None)),
            (Self::Starting, Event::StartFailed) => {
                Ok((Self::Stopping(StopReason::StartFailed), Effect::Release))
            }
            (Self::Starting | Self::Running { .. }, Event::EngineExited) => {
                Ok((Self::Stopping(StopReason::Exited), Effect::Release))
            }
            (Self::Starting | Self::Running { .. }, Event::Kill(reason)) => {
                Ok((Self::Stopping(reason), Effect::Release))
            }
            // Whoever asks again for the end gets it, and an engine that ends while being stopped is what
            // was asked for.
            (Self::Stopping(_) | Self::Stopped(_), Event::Kill(_) | Event::EngineExited) => {
                Ok((self.clone(), Effect::None))
            }
            (Self::Stopping(reason), Event::Released) => Ok((Self::Stopped(*reason), Effect::None)),
            (Self::Stopped(_), Event::Ready { .. } | Event::StartFailed | Event::Released) => {
                Err(Refused::Gone)
            }
            (state, Event::Ready { .. } | Event::StartFailed | Event::Released) => {
                Err(Refused::NotWhile(state.name()))
            }
        }
    }

    /// The state's name, for messages and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Stopping(_) => "stopping",
            Self::Stopped(_) => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies the events one by one; the states passed through, or the refusal.
    #[track_caller]
    fn check(events: &str, want: &str) {
        let run = RunId(uuid::Uuid::nil());
        let mut state = State::Starting;
        let mut seen = Vec::new();
        for word in events.split(' ') {
            let event = match word {
                "ready" => Event::Ready { run },
                "fail" => Event::StartFailed,
                "exit" => Event::EngineExited,
                "kill" => Event::Kill(StopReason::Requested),
                "expire" => Event::Kill(StopReason::Expired),
                "released" => Event::Released,
                other => panic!("no such event: {other}"),
            };
            match state.apply(event) {
                Ok((next, effect)) => {
                    let mark = if effect == Effect::Release { "!" } else { "" };
                    seen.push(format!("{}{mark}", next.name()));
                    state = next;
                }
                Err(refused) => seen.push(format!("({refused})")),
            }
        }
        assert_eq!(seen.join(" "), want, "after {events:?}");
    }

    #[test]
    fn a_life() {
        check("ready kill released", "running stopping! stopped");
    }

    #[test]
    fn kill_wins_during_start_and_releases_once() {
        check(
            "kill ready kill exit released",
            "stopping! (not possible while the sandbox is stopping) stopping stopping stopped",
        );
    }

    #[test]
    fn a_failed_start_and_an_engine_that_dies_release_too() {
        check("fail released", "stopping! stopped");
        check("exit released", "stopping! stopped");
        check("ready exit expire released", "running stopping! stopping stopped");
    }

    #[test]
    fn nothing_leaves_the_end() {
        check("kill released ready kill", "stopping! stopped (sandbox has ended) stopped");
    }
}
