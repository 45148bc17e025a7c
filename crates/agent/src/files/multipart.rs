//! Takes a `multipart/form-data` body apart as it arrives. No I/O.
//!
//! [`Parser::push`] takes bytes, [`Parser::next_event`] gives parts and their contents back in pieces. Memory is
//! bounded by what is pushed at once.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;

use super::disposition::{FormData, parse_form_data};

/// Headers of one part. Clients send a name and a type.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Source: RFC 2046 §5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

/// What comes next in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// More bytes have to be pushed first.
    Hungry,
    /// A part begins.
    Part(FormData),
    /// A piece of the part's content, never empty.
    Data(Bytes),
    /// The part is complete.
    PartEnd,
    /// The body is complete.
    End,
}

/// A body that is not what its content type says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("no multipart boundary param in Content-Type")]
    NoBoundary,
    #[error("multipart: part headers too large")]
    HeadTooLarge,
    #[error("multipart: NextPart: EOF")]
    Incomplete,
}

#[derive(Debug, PartialEq, Eq)]
enum At {
    /// Before the first boundary, or between two parts: everything up to a boundary is skipped.
    Outside,
    /// Just behind a boundary.
    Behind,
    Head,
    Content,
    End,
}

/// One body on its way.
#[derive(Debug)]
pub(super) struct Parser {
    buffer: BytesMut,
    /// A line break, two hyphens, the boundary.
    delimiter: Vec<u8>,
    at: At,
}

impl Parser {
    /// A parser for the boundary named in the content type.
    pub(super) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let boundary = boundary(content_type).ok_or(MultipartError::NoBoundary)?;
        // The first boundary has no line break before it unless there is a preamble.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Ok(Self { buffer, delimiter: format!("\r\n--{boundary}").into_bytes(), at: At::Outside })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn next_event(&mut self) -> Result<Event, MultipartError> {
        loop {
            match self.at {
                At::Outside => match memmem::find(&self.buffer, &self.delimiter) {
                    Some(found) => {
                        self.buffer.advance(found + self.delimiter.len());
                        self.at = At::Behind;
                    }
                    None => {
                        self.buffer.advance(self.settled());
                        return Ok(Event::Hungry);
                    }
                },
                At::Behind => {
                    if self.buffer.starts_with(b"--") {
                        self.at = At::End;
                        continue;
                    }
                    // White space may stand between a boundary and its line break.
                    let Some(line) = memmem::find(&self.buffer, b"\r\n") else {
                        return self.hungry_for_head();
                    };
                    // Keep the line break: an empty head is one line break after another.
                    self.buffer.advance(line);
                    self.at = At::Head;
                }
                At::Head => {
                    let Some(found) = memmem::find(&self.buffer, b"\r\n\r\n") else {
                        return self.hungry_for_head();
                    };
                    let head = self.buffer.split_to(found + 4);
                    self.at = At::Content;
                    return Ok(Event::Part(read_head(&head)));
                }
                At::Content => {
                    let found = memmem::find(&self.buffer, &self.delimiter);
                    let count = found.unwrap_or_else(|| self.settled());
                    if count > 0 {
                        return Ok(Event::Data(self.buffer.split_to(count).freeze()));
                    }
                    if found.is_none() {
                        return Ok(Event::Hungry);
                    }
                    self.buffer.advance(self.delimiter.len());
                    self.at = At::Behind;
                    return Ok(Event::PartEnd);
                }
                At::End => {
                    self.buffer.clear();
                    return Ok(Event::End);
                }
            }
        }
    }

    /// Bytes that cannot be the beginning of a delimiter.
    fn settled(&self) -> usize {
        self.buffer.len().saturating_sub(self.delimiter.len() - 1)
    }

    fn hungry_for_head(&self) -> Result<Event, MultipartError> {
        if self.buffer.len() > HEAD_BYTES_MAX { Err(MultipartError::HeadTooLarge) } else { Ok(Event::Hungry) }
    }
}

fn read_head(head: &[u8]) -> FormData {
    const NAME: &[u8] = b"content-disposition:";
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let found = lines.find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)));
    found.map_or_else(FormData::default, |line| parse_form_data(&line[NAME.len()..]))
}

fn boundary(content_type: &str) -> Option<String> {
    let parameter = content_type.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    })?;
    let boundary = parameter.trim_matches('"');
    (!boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX).then(|| boundary.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parts as name, filename and content, from a body cut into pieces of `cut` bytes.
    fn parse(body: &[u8], cut: usize) -> Result<Vec<(FormData, Vec<u8>)>, MultipartError> {
        let mut parser = Parser::new("multipart/form-data; charset=x; boundary=\"B+1\"").unwrap();
        let mut pieces = body.chunks(cut);
        let mut parts = Vec::new();
        loop {
            match parser.next_event()? {
                Event::Hungry => parser.push(pieces.next().ok_or(MultipartError::Incomplete)?),
                Event::Part(head) => parts.push((head, Vec::new())),
                Event::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                Event::PartEnd => {}
                Event::End => return Ok(parts),
            }
        }
    }

    fn part(filename: &str, content: &[u8]) -> Vec<u8> {
        let head = format!(
            "--B+1\r\nContent-Type: x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\r\n"
        );
        [head.as_bytes(), content, b"\r\n"].concat()
    }

    proptest! {
        #[test]
        fn parts_survive_any_cut(
            contents in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), any::<u8>()], 0..60), 0..4),
            cut in 1usize..40,
            preamble in prop_oneof![Just(&b""[..]), Just(&b"hello\r\n"[..])],
        ) {
            let body: Vec<u8> = contents.iter().flat_map(|content| part("a/ä b", content)).collect();
            let body = [preamble, &body, b"--B+1--\r\nepilogue"].concat();
            let got = parse(&body, cut).unwrap();
            prop_assert_eq!(got.len(), contents.len());
            for ((head, got), want) in got.iter().zip(&contents) {
                prop_assert_eq!(head.filename.as_deref(), Some("a/ä b"));
                prop_assert_eq!(got, want);
            }
        }

        #[test]
        fn any_body_is_taken_apart_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let _ = parse(&body, cut);
        }
    }

    #[test]
    fn a_part_without_headers_has_no_name() {
        let parts = parse(b"--B+1\r\n\r\nx\r\n--B+1--", 3).unwrap();
        assert_eq!(parts, [(FormData::default(), b"x".to_vec())]);
    }

    #[test]
    fn a_torn_body_is_noticed() {
        assert_eq!(parse(b"--B+1\r\n\r\nx\r\n--B+", 100), Err(MultipartError::Incomplete));
    }

    #[test]
    fn endless_headers_are_refused() {
        let body = [&b"--B+1\r\nX: "[..], &[b'a'; HEAD_BYTES_MAX]].concat();
        assert_eq!(parse(&body, 1000), Err(MultipartError::HeadTooLarge));
    }
}
