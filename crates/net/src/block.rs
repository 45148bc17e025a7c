//! Addresses on the host: which block an instance has, and which address in it a slot.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use sandbar_model::{GuestNetwork, SlotIndex};

/// Where all blocks of all instances on a host lie: RFC 2544's range for benchmarks, which is never routed.
pub(crate) const RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

/// Prefix length of one instance's block; 32 of them are in the range.
const BLOCK_PREFIX: u8 = 20;

/// The addresses of one instance: a /20 of [`RANGE`].
///
/// `.1` is the host's own end of every link; slots follow from `.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block(Ipv4Net);

/// The addresses of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotAddresses {
    /// The host's end of the link: the router's gateway, and whom the guest sees when the host dials it.
    pub(crate) host: Ipv4Addr,
    /// The slot's own address: where the host finds the guest.
    pub(crate) block: Ipv4Addr,
    /// What is the same in every slot.
    pub(crate) guest: GuestNetwork,
}

/// Why a text is not a block.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a block of addresses")]
pub(crate) struct BlockError(String);

impl Block {
    /// Slots that fit: all addresses but the network's own, the host's and the last.
    pub(crate) const SLOTS: u16 = (1 << (32 - BLOCK_PREFIX)) - 3;

    /// All blocks there are.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        RANGE.subnets(BLOCK_PREFIX).expect("a block is smaller than the range").map(Self)
    }

    /// The block as a network.
    pub(crate) fn network(self) -> Ipv4Net {
        self.0
    }

    /// The host's own address in the block.
    pub(crate) fn host(self) -> Ipv4Addr {
        self.nth(1)
    }

    /// The addresses of a slot, unless its number is too big for the block.
    pub(crate) fn slot(self, slot: SlotIndex) -> Option<SlotAddresses> {
        (slot.0 < Self::SLOTS).then(|| SlotAddresses {
            host: self.host(),
            block: self.nth(u32::from(slot.0) + 2),
            guest: GuestNetwork::STANDARD,
        })
    }

    fn nth(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + offset)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Block {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        Self::all().find(|block| block.to_string() == text).ok_or_else(|| BlockError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_the_range_and_slots_fill_a_block() {
        let blocks: Vec<Block> = Block::all().collect();
        assert_eq!(blocks.len(), 32);
        let last = blocks[31];
        assert_eq!(last.to_string(), "198.19.240.0/20");
        assert_eq!(last.host(), Ipv4Addr::new(198, 19, 240, 1));
        let slot = |number| last.slot(SlotIndex(number)).map(|addresses| addresses.block);
        assert_eq!(slot(0), Some(Ipv4Addr::new(198, 19, 240, 2)));
        assert_eq!(slot(Block::SLOTS - 1), Some(Ipv4Addr::new(198, 19, 255, 254)));
        assert_eq!(slot(Block::SLOTS), None);
    }

    #[test]
    fn a_block_is_read_back() {
        let block = Block::all().nth(3).expect("there are 32");
        assert_eq!(block.to_string().parse::<Block>().expect("what was written"), block);
        assert!("10.0.0.0/20".parse::<Block>().is_err());
        assert!("198.18.1.0/20".parse::<Block>().is_err());
    }
}
