//! Frames of a streaming call: one byte of flags, four bytes of length (big endian), the payload.
//!
//! [`frame`] writes one, [`Decoder`] takes bytes as they arrive and gives whole ones back. No I/O, so that the agent
//! and its callers share it.

/// Flag of a payload that is gzip-compressed.
pub const COMPRESSED: u8 = 0x01;

/// Flag of the last envelope, whose payload is [`EndOfStream`](super::EndOfStream).
pub const END_OF_STREAM: u8 = 0x02;

const HEAD_BYTES: usize = 5;

/// One envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// [`COMPRESSED`], [`END_OF_STREAM`], both or none.
    pub flags: u8,
    /// The message, or the end of the stream.
    pub payload: Vec<u8>,
}

/// An envelope that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Announces more bytes than the reader is ready to hold.
    #[error("message size {length} is larger than configured max {max}")]
    TooLarge {
        /// Announced payload bytes.
        length: u32,
        /// Most bytes the reader takes.
        max: u32,
    },
    /// The stream ended inside an envelope.
    #[error("protocol error: incomplete envelope")]
    Incomplete,
}

/// The bytes of one envelope.
///
/// # Panics
/// When the payload has 4 GiB or more: no message of this protocol comes near.
pub fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a message is smaller than 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.push(flags);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes a byte stream apart into envelopes.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out already.
    consumed: usize,
    payload_bytes_max: u32,
}

impl Decoder {
    /// A decoder that refuses payloads of more than `payload_bytes_max` bytes.
    pub fn new(payload_bytes_max: u32) -> Self {
        Self { buffer: Vec::new(), consumed: 0, payload_bytes_max }
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole envelope, `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`], as soon as the length is known.
    pub fn next_envelope(&mut self) -> Result<Option<Envelope>, EnvelopeError> {
        let rest = &self.buffer[self.consumed..];
        let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [flags, length @ ..] = *head;
        let length = u32::from_be_bytes(length);
        if length > self.payload_bytes_max {
            return Err(EnvelopeError::TooLarge { length, max: self.payload_bytes_max });
        }
        let Some(payload) = body.get(..length as usize) else {
            return Ok(None);
        };
        let envelope = Envelope { flags, payload: payload.to_vec() };
        self.consumed += HEAD_BYTES + envelope.payload.len();
        Ok(Some(envelope))
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// [`EnvelopeError::Incomplete`] when part of an envelope is left.
    pub fn finish(&self) -> Result<(), EnvelopeError> {
        if self.consumed == self.buffer.len() { Ok(()) } else { Err(EnvelopeError::Incomplete) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn envelopes_survive_any_cut(
            envelopes in prop::collection::vec((0u8..4, prop::collection::vec(any::<u8>(), 0..50)), 0..6),
            cut in 1usize..20,
        ) {
            let bytes: Vec<u8> = envelopes.iter().flat_map(|(flags, payload)| frame(*flags, payload)).collect();
            let mut decoder = Decoder::new(64);
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(envelope) = decoder.next_envelope().unwrap() {
                    got.push((envelope.flags, envelope.payload));
                }
            }
            prop_assert_eq!(got, envelopes);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(100);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_envelope() {}
        }
    }

    #[test]
    fn a_large_envelope_is_refused_before_it_arrives() {
        let mut decoder = Decoder::new(10);
        decoder.push(&[0, 0, 0, 0, 11]);
        assert_eq!(decoder.next_envelope(), Err(EnvelopeError::TooLarge { length: 11, max: 10 }));
    }

    #[test]
    fn a_torn_envelope_is_noticed_at_the_end() {
        let mut decoder = Decoder::new(10);
        decoder.push(&[0, 0, 0]);
        assert_eq!(decoder.next_envelope(), Ok(None));
        assert_eq!(decoder.finish(), Err(EnvelopeError::Incomplete));
    }
}
