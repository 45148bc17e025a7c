//! Gzip as fast as the data deserves.
//!
//! Nearly every client asks for gzip, also for data that is compressed already, where it costs much and gives
//! nothing. Each block is therefore either deflated at a fast level or stored, as the blocks before it turned
//! out. Blocks do not refer to each other.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Ten bytes: magic, deflate, no flags, no time, no hint, unknown system. Source: RFC 1952.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty stored block with the mark of the last one. Source: RFC 1951 §3.2.4.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Most bytes of a stored block. Source: RFC 1951 §3.2.4.
const STORED_BYTES_MAX: usize = 65_535;

/// Not the fastest level: zlib-rs 0.6 overruns its own buffer there on data that does not compress.
const LEVEL: Compression = Compression::new(2);

/// After a block that did not shrink, this many are stored without trying.
const SKIP_BLOCKS: u32 = 15;

/// Writes one gzip member, block by block.
pub(super) struct Encoder {
    deflate: Compress,
    checksum: Crc,
    skip_blocks: u32,
    started: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        let deflate = Compress::new(LEVEL, false);
        Self { deflate, checksum: Crc::new(), skip_blocks: 0, started: false }
    }

    /// The bytes that stand for this block.
    pub(super) fn block(&mut self, plain: &[u8]) -> Vec<u8> {
        self.checksum.update(plain);
        let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 1024);
        self.start(&mut out);
        let start = out.len();
        if self.skip_blocks > 0 {
            self.skip_blocks -= 1;
        } else if self.deflate(plain, &mut out) {
            if out.len() - start < plain.len() - plain.len() / 16 {
                return out;
            }
            out.truncate(start);
            self.skip_blocks = SKIP_BLOCKS;
        } else {
            out.truncate(start);
        }
        for piece in plain.chunks(STORED_BYTES_MAX) {
            let length = piece.len() as u16;
            out.push(0);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&(!length).to_le_bytes());
            out.extend_from_slice(piece);
        }
        out
    }

    /// The bytes after the last block.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.start(&mut out);
        out.extend_from_slice(&LAST_BLOCK);
        out.extend_from_slice(&self.checksum.sum().to_le_bytes());
        out.extend_from_slice(&self.checksum.amount().to_le_bytes());
        out
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !self.started {
            self.started = true;
            out.extend_from_slice(&HEADER);
        }
    }

    /// Appends the block deflated and aligned to a whole byte; `false` when that did not fit or did not work.
    fn deflate(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        self.deflate.reset();
        let before = self.deflate.total_in();
        let status = self.deflate.compress_vec(plain, out, FlushCompress::Sync);
        let whole = self.deflate.total_in() - before == plain.len() as u64;
        // A flush is complete only when there was room to spare behind it.
        matches!(status, Ok(Status::Ok)) && whole && out.len() < out.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read as _;

    fn encoded(blocks: &[Vec<u8>]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut bytes: Vec<u8> = blocks.iter().flat_map(|block| encoder.block(block)).collect();
        bytes.extend(encoder.finish());
        bytes
    }

    fn decoded(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn text_shrinks_and_noise_hardly_grows() {
        let text = vec![b"all work and no play ".repeat(5000); 4];
        assert!(encoded(&text).len() < text.concat().len() / 20);
        assert_eq!(decoded(&encoded(&text)), text.concat());
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(300_000)
        .collect();
        let blocks = vec![noise; 3];
        assert!(encoded(&blocks).len() < 900_300);
        assert_eq!(decoded(&encoded(&blocks)), blocks.concat());
    }

    #[test]
    fn nothing_is_a_valid_member() {
        assert_eq!(decoded(&encoded(&[])), b"");
    }

    proptest! {
        #[test]
        fn any_blocks_come_back(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            prop_assert_eq!(decoded(&encoded(&blocks)), blocks.concat());
        }
    }
}
