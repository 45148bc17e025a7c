//! What about this host would keep sandboxes from the network, and the cure.

use serde::Deserialize;

use crate::nft::{Nft, NftError};

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: String,
    /// What the operator can do about it.
    pub cure: String,
}

/// Looks at the host; empty when all is well. Changes nothing.
pub async fn findings() -> Vec<Finding> {
    let listed = match Nft::find() {
        Ok(nft) => nft.chains().await,
        Err(error) => Err(error),
    };
    match listed {
        Ok(chains) => dropping_chains(&chains),
        Err(error @ NftError::Missing) => {
            vec![Finding { problem: error.to_string(), cure: "apt-get install nftables".to_owned() }]
        }
        Err(error) => vec![Finding {
            problem: format!("the packet filter does not work: {error}"),
            cure: "run as root on a kernel with nf_tables".to_owned(),
        }],
    }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

/// Chains that drop what they do not know among forwarded packets. A packet must pass every chain, so ours cannot
/// help; container managers are known to leave such a chain.
fn dropping_chains(listing: &str) -> Vec<Finding> {
    let Ok(listing) = serde_json::from_str::<Listing>(listing) else {
        return vec![Finding {
            problem: "nft's list of chains is not understood".to_owned(),
            cure: "check by hand that no chain with hook forward has policy drop".to_owned(),
        }];
    };
    let chains = listing.nftables.into_iter().filter_map(|item| item.chain);
    let dropping = chains.filter(|chain| {
        chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
            && matches!(chain.family.as_str(), "ip" | "inet")
    });
    dropping
        .map(|Chain { family, table, name, .. }| Finding {
            problem: format!(
                "chain {name} of nft table {family} {table} drops forwarded packets; sandboxes have no internet"
            ),
            cure: "accept links sb* there in both directions, with Docker: \
                   iptables -I DOCKER-USER -i sb+ -j ACCEPT; iptables -I DOCKER-USER -o sb+ -j ACCEPT"
                .to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_drops_forwarded_packets_is_found() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 1}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 2, "type": "filter",
                       "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 3, "type": "filter",
                       "hook": "forward", "prio": 0, "policy": "drop"}}]}"#;
        let found = dropping_chains(listing);
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.starts_with("chain FORWARD of nft table ip filter "));
    }
}
