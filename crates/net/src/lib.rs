//! One sandbox's network: slots, namespaces, links, nftables, DNS forwarder.
