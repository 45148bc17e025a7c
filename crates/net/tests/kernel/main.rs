//! Networks on the real kernel: namespaces, links, nftables and DNS, without an engine.
//!
//! Every test needs root and the programs `nft` and `ip`, and fails without them. Tests run one after the other,
//! also across processes, because they share the host's routes; each leaves the host as it was, also when it fails.

mod bench;
mod egress;
mod life;
mod probe;
mod world;
