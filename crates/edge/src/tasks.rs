//! The tasks of the edge: counted, so that their owner can wait for them, and cut when time is up.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with one end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    /// Runs `work` until it is done or the tasks are cut.
    pub(crate) fn spawn<F>(&self, work: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let cut = self.cut.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                _ = work => {}
            }
        });
    }

    /// Waits until every task is done.
    pub(crate) async fn done(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Drops what still runs, and waits until it is dropped.
    pub(crate) async fn cut(&self) {
        self.cut.cancel();
        self.done().await;
    }
}

// HTTP/2 answers each stream in a task of its own.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}
