//! Which slots exist and what each is doing. No I/O.
//!
//! ```text
//!  reserve ─▶ Busy ─▶ Ready ─▶ Leased ──▶ Busy ─▶ gone
//!              │                ▲  (release)  │
//!              └────────────────┘             └──▶ Broken
//!               (built for a lease)             (could not be removed)
//! ```
//!
//! Work on a slot takes its state out and leaves `Busy`; whoever else wants the slot waits. So no two tasks ever
//! work on one slot, and a state has no flags.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use sandbar_model::SlotIndex;
use tokio::sync::watch;

use crate::block::Block;
use crate::dns::Forwarder;

/// What a slot is doing.
#[derive(Debug)]
pub(super) enum State {
    /// Somebody works on it; the channel closes when they have done.
    Busy(watch::Receiver<()>),
    /// Built and waiting for a sandbox.
    Ready(Forwarder),
    /// Held by a sandbox.
    Leased(Forwarder),
    /// Held by a sandbox of an earlier run of the server, which has not asked for it yet.
    Kept,
    /// Something of it could not be removed; its number is not given again.
    Broken,
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Built and waiting for a sandbox.
    pub ready: usize,
    /// Held by a sandbox.
    pub leased: usize,
    /// Being built, changed or removed, or left by an earlier run and not claimed yet.
    pub other: usize,
}

/// All slots of an instance, shared.
#[derive(Clone, Debug)]
pub(super) struct Table(Arc<Mutex<Slots>>);

#[derive(Debug)]
struct Slots {
    states: BTreeMap<SlotIndex, State>,
    /// The keys of those in state `Ready`, oldest first.
    ready: VecDeque<SlotIndex>,
    /// Where the search for a free number begins: numbers go round, so that an address is not given again while
    /// somebody may still hold a connection to it.
    next: u16,
    max: u16,
}

/// The right to work on one slot. Unless [`put`](Hold::put) or [`remove`](Hold::remove) ends it, the slot is
/// taken for broken.
#[derive(Debug)]
pub(super) struct Hold {
    table: Table,
    slot: SlotIndex,
    after: Option<State>,
    _done: watch::Sender<()>,
}

impl Table {
    /// A table with slots of an earlier run, for at most `max` slots in all.
    pub(super) fn new(kept: impl IntoIterator<Item = SlotIndex>, max: u16) -> Self {
        let states: BTreeMap<_, _> = kept.into_iter().map(|slot| (slot, State::Kept)).collect();
        let next = states.last_key_value().map_or(0, |(slot, _)| slot.0.saturating_add(1));
        let max = max.min(Block::SLOTS);
        Self(Arc::new(Mutex::new(Slots { states, ready: VecDeque::new(), next, max })))
    }

    /// Slots there may be.
    pub(super) fn max(&self) -> u16 {
        self.lock().max
    }

    pub(super) fn counts(&self) -> SlotCounts {
        let slots = self.lock();
        let leased = slots.states.values().filter(|state| matches!(state, State::Leased(_))).count();
        let ready = slots.ready.len();
        SlotCounts { ready, leased, other: slots.states.len() - leased - ready }
    }

    /// The numbers of all slots.
    pub(super) fn slots(&self) -> Vec<SlotIndex> {
        self.lock().states.keys().copied().collect()
    }

    /// Takes a free number for a new slot; `None` when there are as many slots as there may be.
    pub(super) fn reserve(&self) -> Option<Hold> {
        let mut slots = self.lock();
        if slots.states.len() >= usize::from(slots.max) {
            return None;
        }
        let from_next = (slots.next..Block::SLOTS).chain(0..slots.next.min(Block::SLOTS));
        let slot = from_next.map(SlotIndex).find(|slot| !slots.states.contains_key(slot))?;
        slots.next = slot.0 + 1;
        Some(self.make_busy(&mut slots, slot))
    }

    /// Makes the oldest ready slot a leased one.
    pub(super) fn lease_ready(&self) -> Option<SlotIndex> {
        let mut slots = self.lock();
        let slot = slots.ready.pop_front()?;
        let Some(State::Ready(forwarder)) = slots.states.remove(&slot) else {
            unreachable!("the queue holds the slots that are ready");
        };
        slots.states.insert(slot, State::Leased(forwarder));
        Some(slot)
    }

    /// Takes the oldest ready slot to work on it.
    pub(super) fn take_ready(&self) -> Option<(Hold, Forwarder)> {
        let mut slots = self.lock();
        let slot = slots.ready.pop_front()?;
        let Some(State::Ready(forwarder)) = slots.states.remove(&slot) else {
            unreachable!("the queue holds the slots that are ready");
        };
        Some((self.make_busy(&mut slots, slot), forwarder))
    }

    /// Takes a slot to work on it, once nobody else does; `None` when there is no such slot.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken until it returns.
    pub(super) async fn take(&self, slot: SlotIndex) -> Option<(Hold, State)> {
        loop {
            let mut busy = {
                let mut slots = self.lock();
                match slots.states.remove(&slot)? {
                    State::Busy(done) => {
                        slots.states.insert(slot, State::Busy(done.clone()));
                        done
                    }
                    state => {
                        slots.ready.retain(|ready| *ready != slot);
                        return Some((self.make_busy(&mut slots, slot), state));
                    }
                }
            };
            // Nothing is ever sent; an error means that whoever worked on it has done.
            let _ = busy.changed().await;
        }
    }

    fn make_busy(&self, slots: &mut Slots, slot: SlotIndex) -> Hold {
        let (done, busy) = watch::channel(());
        slots.states.insert(slot, State::Busy(busy));
        Hold { table: self.clone(), slot, after: Some(State::Broken), _done: done }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl Hold {
    /// Which slot.
    pub(super) fn slot(&self) -> SlotIndex {
        self.slot
    }

    /// Ends the work; the slot is now in this state.
    pub(super) fn put(mut self, state: State) {
        self.after = Some(state);
    }

    /// Ends the work; the slot is no more and its number is free.
    pub(super) fn remove(mut self) {
        self.after = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut slots = self.table.lock();
        match self.after.take() {
            Some(state) => {
                if matches!(state, State::Ready(_)) {
                    slots.ready.push_back(self.slot);
                }
                slots.states.insert(self.slot, state);
            }
            None => {
                slots.states.remove(&self.slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round_and_are_not_given_twice() {
        let table = Table::new([SlotIndex(Block::SLOTS - 2), SlotIndex(0)], 5);
        let numbers = || table.reserve().map(|hold| hold.slot().0);
        let first = table.reserve().expect("room");
        assert_eq!(first.slot().0, Block::SLOTS - 1, "after the last one kept");
        assert_eq!(numbers(), Some(1), "0 is kept");
        first.remove();
        assert_eq!(numbers(), Some(2), "what was freed comes last");
        assert_eq!(numbers(), Some(3), "a hold that was dropped leaves a broken slot");
        assert_eq!(numbers(), None, "five slots are there");
    }

    #[test]
    fn whoever_reserves_at_the_same_time_gets_another_number() {
        let table = Table::new([], 400);
        let reserve = || (0..50).map(|_| table.reserve().expect("room")).collect::<Vec<Hold>>();
        let holds = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(reserve));
            threads.map(|thread| thread.join().expect("no panic")).into_iter().flatten().collect::<Vec<_>>()
        });
        let mut numbers: Vec<u16> = holds.iter().map(|hold| hold.slot().0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 400);
    }

    #[tokio::test]
    async fn who_wants_a_busy_slot_waits_for_it() {
        let table = Table::new([SlotIndex(3)], 10);
        let (hold, state) = table.take(SlotIndex(3)).await.expect("kept");
        assert!(matches!(state, State::Kept));
        let waiting = tokio::spawn({
            let table = table.clone();
            async move { table.take(SlotIndex(3)).await.is_none() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        hold.remove();
        assert!(waiting.await.expect("no panic"), "it is gone");
    }
}
