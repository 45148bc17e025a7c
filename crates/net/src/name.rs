//! Names of kernel objects: made from the instance and the slot, and read back from them.

use camino::Utf8PathBuf;
use sandbar_model::{InstanceId, SlotIndex};

/// Where namespaces are pinned. The place is iproute2's, so that `ip netns` shows them.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// The names of one instance's objects.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    instance: InstanceId,
}

impl Names {
    pub(crate) fn new(instance: InstanceId) -> Self {
        Self { instance }
    }

    /// The namespace that routes, filters and answers DNS.
    pub(crate) fn router_netns(&self, slot: SlotIndex) -> String {
        format!("{}{}-r", self.netns_prefix(), slot.0)
    }

    /// The namespace that the engine enters.
    pub(crate) fn guest_netns(&self, slot: SlotIndex) -> String {
        format!("{}{}-g", self.netns_prefix(), slot.0)
    }

    /// The host's end of the slot's link: at most 12 of the 15 bytes the kernel allows.
    pub(crate) fn link(&self, slot: SlotIndex) -> String {
        format!("{}{}", self.link_prefix(), slot.0)
    }

    /// All links of the instance, as nft matches them.
    pub(crate) fn link_pattern(&self) -> String {
        format!("{}*", self.link_prefix())
    }

    /// The nft table on the host, in family `inet`.
    pub(crate) fn table(&self) -> String {
        format!("sandbar-{}", self.instance)
    }

    /// The slot a namespace of this instance belongs to.
    pub(crate) fn slot_of_netns(&self, name: &str) -> Option<SlotIndex> {
        let numbered = name.strip_prefix(&self.netns_prefix())?;
        slot_number(numbered.strip_suffix("-r").or_else(|| numbered.strip_suffix("-g"))?)
    }

    /// The slot a link of this instance belongs to.
    pub(crate) fn slot_of_link(&self, name: &str) -> Option<SlotIndex> {
        slot_number(name.strip_prefix(&self.link_prefix())?)
    }

    fn netns_prefix(&self) -> String {
        format!("sb-{}-", self.instance)
    }

    fn link_prefix(&self) -> String {
        format!("sb{}-", self.instance)
    }
}

/// Where the namespace of this name is pinned.
pub(crate) fn netns_path(name: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(NETNS_DIR).join(name)
}

/// Only what we would have written ourselves: `+1` or `01` is somebody else's.
fn slot_number(text: &str) -> Option<SlotIndex> {
    let number: u16 = text.parse().ok()?;
    (number.to_string() == text).then_some(SlotIndex(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(instance: &str) -> Names {
        Names::new(instance.parse().expect("a well-formed instance id"))
    }

    #[test]
    fn names_are_read_back() {
        let names = names("ab12");
        let slot = SlotIndex(4092);
        assert_eq!(names.link(slot), "sbab12-4092");
        assert_eq!(names.router_netns(slot), "sb-ab12-4092-r");
        assert_eq!(names.slot_of_link("sbab12-4092"), Some(slot));
        assert_eq!(names.slot_of_netns("sb-ab12-4092-r"), Some(slot));
        assert_eq!(names.slot_of_netns("sb-ab12-4092-g"), Some(slot));
    }

    #[test]
    fn the_names_of_others_are_not_ours() {
        let names = names("ab");
        for other in ["sbab1-1", "sbab-", "sbab-01", "sbab-+1", "sbab-70000", "eth0", "sbab-1x"] {
            assert_eq!(names.slot_of_link(other), None, "{other}");
        }
        for other in ["sb-ab1-1-r", "sb-ab-1", "sb-ab-1-x", "sb-ab--r"] {
            assert_eq!(names.slot_of_netns(other), None, "{other}");
        }
    }
}
