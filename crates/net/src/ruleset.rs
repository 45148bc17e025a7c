//! Policy to nft script: pure functions, so that what the kernel is told can be read and tested as text.
//!
//! A script is one nft transaction: it applies whole or not at all.
//!
//! The router's filter, in order: replies pass; what is always denied is refused; what the policy denies is
//! refused; the rest passes. The policy is the content of one set, because adding to a set is the only change
//! that the kernel makes without waiting for a grace period (measured: 5 ms against 18 ms with `nft` spawned).
//!
//! Refusals answer (TCP reset, ICMP unreachable) instead of dropping: a client in the sandbox then fails at once
//! and not after its timeout.
//!
//! Not here: policy by domain or range, and TCP by host name; they add sets and a redirection to [`router`].

use sandbar_model::EgressPolicy;

use crate::block::{Block, SlotAddresses};
use crate::name::Names;

/// What no policy opens. Source: contract/network.md §2, step 1; the last four are no places on the internet
/// ("this network", our own blocks, multicast, reserved).
const ALWAYS_DENIED: [&str; 10] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "0.0.0.0/8",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// Connections that one guest may hold open; the host's own tracking table is shared by all guests.
const CONNECTIONS_MAX: u32 = 4096;

/// Connections that one guest may open in a second, and how far it may run ahead of that.
const CONNECTIONS_PER_SECOND: u32 = 500;
const CONNECTIONS_BURST: u32 = 1000;

/// The ruleset of a slot's router namespace. Replaces what is there; connections that exist live on.
pub(crate) fn router(addresses: &SlotAddresses, policy: EgressPolicy) -> String {
    let SlotAddresses { host, block, guest } = addresses;
    let (guest, gateway) = (guest.address, guest.gateway);
    let always_denied = ALWAYS_DENIED.join(", ");
    let policy = policy_elements(policy);
    format!(
        r#"table inet sandbar
delete table inet sandbar
table inet sandbar {{
  set always_denied {{
    type ipv4_addr
    flags interval
    elements = {{ {always_denied} }}
  }}
  set policy_denied {{
    type ipv4_addr
    flags interval
  }}
  chain spoofed {{
    type filter hook prerouting priority raw; policy accept;
    iifname "down" ip saddr != {guest} drop
    meta nfproto ipv6 drop
  }}
  chain from_host {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "up" ip saddr {host} ip daddr {block} dnat ip to {guest}
  }}
  chain to_outside {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "up" ip saddr {guest} snat ip to {block}
  }}
  chain to_router {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "down" ip daddr {gateway} udp dport 53 accept
    iifname "down" ip daddr {gateway} tcp dport 53 accept
    iifname "down" ip daddr {gateway} icmp type echo-request accept
    iifname "down" goto refused
  }}
  chain through {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname "up" oifname "down" ip saddr {host} ip daddr {guest} accept
    iifname "down" oifname "up" goto egress
    iifname "down" goto refused
  }}
  chain egress {{
    ip daddr @always_denied goto refused
    ip daddr @policy_denied goto refused
    limit rate over {CONNECTIONS_PER_SECOND}/second burst {CONNECTIONS_BURST} packets drop
    ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain refused {{
    meta l4proto tcp reject with tcp reset
    meta l4proto udp reject with icmp type port-unreachable
    reject with icmp type admin-prohibited
  }}
}}
{policy}"#
    )
}

/// The change from any policy to this one in a router namespace that has a ruleset.
pub(crate) fn policy_change(policy: EgressPolicy) -> String {
    format!("flush set inet sandbar policy_denied\n{}", policy_elements(policy))
}

fn policy_elements(policy: EgressPolicy) -> &'static str {
    match policy {
        EgressPolicy::Internet => "",
        EgressPolicy::Nothing => "add element inet sandbar policy_denied { 0.0.0.0/0 }\n",
    }
}

/// The table of an instance in the host's namespace. Replaces what is there; connections that exist live on.
///
/// A guest must not reach the host by any of the host's addresses. That is decided before the NAT of other
/// software (a published container port) could turn such an address into a forwarded one, hence the chain at
/// `mangle`; what other software's NAT makes of the remaining addresses is checked again when forwarding.
pub(crate) fn host(names: &Names, block: Block) -> String {
    let (table, links, block) = (names.table(), names.link_pattern(), block.network());
    let always_denied = ALWAYS_DENIED.join(", ");
    format!(
        r#"table inet {table}
delete table inet {table}
table inet {table} {{
  set always_denied {{
    type ipv4_addr
    flags interval
    elements = {{ {always_denied} }}
  }}
  chain before_nat {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{links}" jump from_guest
  }}
  chain from_guest {{
    meta nfproto ipv6 drop
    ct state established,related accept
    ip saddr != {block} drop
    fib daddr type != unicast goto refused
  }}
  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname "{links}" ct state established,related accept
    iifname "{links}" drop
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    oifname "{links}" drop
    iifname "{links}" ip daddr @always_denied goto refused
  }}
  chain to_outside {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {block} oifname != "{links}" masquerade
  }}
  chain refused {{
    meta l4proto tcp reject with tcp reset
    meta l4proto udp reject with icmp type port-unreachable
    reject with icmp type admin-prohibited
  }}
}}
"#
    )
}

/// Removes the instance's table from the host's namespace; no error when there is none.
pub(crate) fn remove_host(names: &Names) -> String {
    let table = names.table();
    format!("table inet {table}\ndelete table inet {table}\n")
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
    use sandbar_model::SlotIndex;

    use super::*;
    use crate::block;

    #[track_caller]
    fn check(got: &str, golden: &str) {
        assert_eq!(got, golden, "the golden text is in src/ruleset/");
    }

    fn block() -> Block {
        Block::all().nth(1).expect("there are 32")
    }

    fn addresses() -> SlotAddresses {
        block().slot(SlotIndex(5)).expect("5 is a slot of every block")
    }

    #[test]
    fn router_with_internet() {
        check(&router(&addresses(), EgressPolicy::Internet), include_str!("ruleset/router-internet.nft"));
    }

    #[test]
    fn router_with_nothing() {
        check(&router(&addresses(), EgressPolicy::Nothing), include_str!("ruleset/router-nothing.nft"));
    }

    #[test]
    fn host_table() {
        let names = Names::new("ab12".parse().expect("well-formed"));
        check(&host(&names, block()), include_str!("ruleset/host.nft"));
    }

    #[test]
    fn a_change_of_policy_empties_the_set_first() {
        check(&policy_change(EgressPolicy::Internet), "flush set inet sandbar policy_denied\n");
        check(
            &policy_change(EgressPolicy::Nothing),
            "flush set inet sandbar policy_denied\nadd element inet sandbar policy_denied { 0.0.0.0/0 }\n",
        );
    }

    #[test]
    fn our_own_blocks_are_always_denied() {
        assert!(ALWAYS_DENIED.contains(&block::RANGE.to_string().as_str()));
        for range in ALWAYS_DENIED {
            range.parse::<Ipv4Net>().expect("a range");
        }
    }
}
