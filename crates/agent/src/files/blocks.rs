//! The body of an upload in blocks of convenient size, decompressed.

use std::io::{self, Write as _};
use std::time::Duration;

use crate::question::Question;
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http::StatusCode;
use http_body_util::BodyExt as _;

use crate::body::Refusal;

/// Blocks are collected up to about this size: few system calls for large files, one for small ones.
const BLOCK_BYTES: usize = 1 << 20;

/// Compressed bytes that are decompressed at once. They grow at most about a thousandfold.
const COMPRESSED_STEP_BYTES: usize = 4096;

/// An upload that brings nothing for so long is given up. Clients have no such limit themselves.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// A request body, read block by block.
pub(super) struct Blocks {
    incoming: Question,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    /// Arrived, not yet decompressed or handed out.
    arrived: Bytes,
    ended: bool,
}

impl Blocks {
    /// `gzipped` says whether the whole body is compressed.
    pub(super) fn new(incoming: Question, gzipped: bool) -> Self {
        let gzip = gzipped.then(|| MultiGzDecoder::new(Vec::new()));
        Self { incoming, gzip, arrived: Bytes::new(), ended: false }
    }

    /// The next block, never empty; `None` at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let block = match self.gzip.take() {
            None => self.next_plain().await?,
            Some(decoder) => self.next_gzipped(decoder).await?,
        };
        Ok((!block.is_empty()).then_some(block))
    }

    async fn next_plain(&mut self) -> Result<Bytes, Refusal> {
        let Some(first) = self.next_frame().await? else {
            return Ok(Bytes::new());
        };
        // A small body must become one write, however it was cut on its way.
        let mut block = BytesMut::new();
        let mut last = first;
        while block.len() + last.len() < BLOCK_BYTES {
            block.extend_from_slice(&last);
            match self.next_frame().await? {
                Some(frame) => last = frame,
                None => return Ok(block.freeze()),
            }
        }
        if block.is_empty() {
            return Ok(last);
        }
        block.extend_from_slice(&last);
        Ok(block.freeze())
    }

    async fn next_gzipped(&mut self, mut decoder: MultiGzDecoder<Vec<u8>>) -> Result<Bytes, Refusal> {
        let broken = |_: io::Error| Refusal::bad_request("error reading gzip body: invalid data");
        loop {
            while !self.arrived.is_empty() && decoder.get_ref().len() < BLOCK_BYTES {
                let step = self.arrived.split_to(self.arrived.len().min(COMPRESSED_STEP_BYTES));
                decoder.write_all(&step).map_err(broken)?;
            }
            if decoder.get_ref().len() >= BLOCK_BYTES {
                break;
            }
            match self.next_frame().await? {
                Some(frame) => self.arrived = frame,
                None => {
                    decoder.try_finish().map_err(broken)?;
                    break;
                }
            }
        }
        let block = std::mem::take(decoder.get_mut());
        if !self.ended || !self.arrived.is_empty() || !block.is_empty() {
            self.gzip = Some(decoder);
        }
        Ok(block.into())
    }

    async fn next_frame(&mut self) -> Result<Option<Bytes>, Refusal> {
        while !self.ended {
            let frame = tokio::time::timeout(IDLE_MAX, self.incoming.frame()).await;
            let Ok(frame) = frame else {
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "upload stalled"));
            };
            match frame {
                None => self.ended = true,
                Some(Err(_)) => return Err(Refusal::bad_request("error reading request body")),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
        Ok(None)
    }
}
