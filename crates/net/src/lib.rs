//! One sandbox's network on this host.
//!
//! A *slot* is the network of one sandbox: two namespaces, two link pairs, a ruleset and a DNS forwarder. Slots
//! are built ahead, leased once and destroyed, never handed on, so nothing of one tenant reaches the next.
//!
//! ```text
//!  host ── sb<inst>-<n> ═══ up ── router netns ── down ═══ eth0 ── guest netns
//!  .1 of the block    block address    │     169.254.0.22   169.254.0.21/30
//!                                      └─ NAT, filter, DNS forwarder on port 53
//!
//!          build           lease              release
//!  nothing ─────▶ ready ─────────▶ leased ─────────────▶ nothing
//! ```
//!
//! - Every port of a slot's *block address* is that port of the guest, for the host alone: the edge dials it.
//! - The guest reaches what its policy allows, never the host, another sandbox or a private range.
//! - Names of kernel objects carry the instance and the slot, so whoever comes after a crash finds them without
//!   a record; [`open`] removes what nobody claims.
//!
//! [`open`] gives the one handle, [`Networks`]. Pure parts first: `name` (names on the host), `block` (addresses),
//! `ruleset` (policy to nft script). Then what touches the kernel: `namespace`, `link`, `nft`, `slot` (all of one
//! slot). Then what is shared with others on the host: `claim` (which block is whose), `forwarding` (the host's
//! `ip_forward`), `leftover` (what an instance has left behind). `networks` brings them together.
//!
//! Not here: how a guest is run (`engine` enters the guest namespace), who gets which policy (`control`), traffic
//! into a sandbox (`edge`). Everything needs root and the `nft` program.

mod block;
mod name;
mod ruleset;

mod link;
mod namespace;
mod nft;
mod slot;

mod claim;
mod forwarding;
mod leftover;

mod dns;
mod networks;
mod resolver;

mod finding;

pub use finding::{Finding, findings};
pub use leftover::{LeftoverError, leftovers};
pub use networks::{
    Cause, Config, LeaseError, Networks, OpenError, PolicyError, ReleaseError, SlotCounts, open,
};
