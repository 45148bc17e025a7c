//! As much of a DNS message as relaying needs: header and question. Source: RFC 1035 §4.1.

const HEADER: usize = 12;
const NAME_MAX: usize = 255;
const LABEL_MAX: u8 = 63;

/// Longest query taken from a guest, in bytes. A question is at most 271; the rest is room for options.
pub(super) const QUERY_MAX: usize = 4096;

/// Answer codes that we give ourselves or look for. Source: RFC 1035 §4.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    ServerFailure = 2,
    Refused = 5,
}

/// A query with one question, checked as far as is needed to relay and to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    message: Vec<u8>,
    /// Where the question ends.
    question_end: usize,
}

impl Query {
    /// `None` for what is no standard query with exactly one question.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER)?;
        let is_response = header[2] & 0x80 != 0;
        let opcode = header[2] >> 3 & 0x0f;
        if message.len() > QUERY_MAX || is_response || opcode != 0 || header[4..6] != [0, 1] {
            return None;
        }
        let question_end = question_end(message)?;
        Some(Self { message: message.to_owned(), question_end })
    }

    /// The query as the guest sent it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.message
    }

    /// An answer to this query that has nothing but a code.
    pub(super) fn answer(&self, code: Code) -> Vec<u8> {
        self.header_and_question(0, code as u8)
    }

    /// An answer that tells the guest to ask again over TCP.
    pub(super) fn truncated(&self) -> Vec<u8> {
        const TC: u8 = 0x02;
        self.header_and_question(TC, 0)
    }

    /// Whether `reply` belongs to this query. The address it came from has been checked already.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        let Some(header) = reply.get(..HEADER) else {
            return false;
        };
        let is_response = header[2] & 0x80 != 0;
        if !is_response || header[..2] != self.message[..2] {
            return false;
        }
        // Some servers leave out the question when they refuse it.
        let is_bare_refusal = header[4..6] == [0, 0] && header[3] & 0x0f != 0;
        let question = &self.message[HEADER..self.question_end];
        is_bare_refusal
            || reply
                .get(HEADER..self.question_end)
                .is_some_and(|theirs| theirs.eq_ignore_ascii_case(question))
    }

    fn header_and_question(&self, flags: u8, code: u8) -> Vec<u8> {
        const RESPONSE: u8 = 0x80;
        const RECURSION_DESIRED: u8 = 0x01;
        const RECURSION_AVAILABLE: u8 = 0x80;
        let mut answer = self.message[..self.question_end].to_owned();
        answer[2] = RESPONSE | flags | answer[2] & RECURSION_DESIRED;
        answer[3] = RECURSION_AVAILABLE | code;
        answer[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        answer
    }
}

/// Whether the answer has this code. `answer` has been matched with its query.
pub(super) fn has_code(answer: &[u8], code: Code) -> bool {
    answer.get(3).is_some_and(|byte| byte & 0x0f == code as u8)
}

/// Where the first question ends: labels up to the empty one, then type and class. Compression has nothing to
/// point to in a first question, so it is not accepted.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = *message.get(at)?;
        at += 1;
        if length == 0 {
            break;
        }
        at += usize::from(length);
        if length > LABEL_MAX || at - HEADER >= NAME_MAX {
            return None;
        }
    }
    let end = at + 4;
    (end <= message.len()).then_some(end)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query for the address of `name`.
    pub(in super::super) fn query(id: u16, name: &str) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).expect("a short label"));
            message.extend(label.bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    #[test]
    fn a_refusal_repeats_the_question_and_says_nothing_else() {
        let mut with_option = query(0x1234, "example.com");
        with_option[11] = 1;
        let question_end = with_option.len();
        with_option.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        let answer = Query::parse(&with_option).expect("a query").answer(Code::Refused);
        assert_eq!(answer[..12], [0x12, 0x34, 0x81, 0x85, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], with_option[12..question_end]);
    }

    #[test]
    fn an_answer_belongs_to_its_id_and_question() {
        let asked = Query::parse(&query(7, "example.com")).expect("a query");
        let mut answer = query(7, "EXAMPLE.com");
        assert!(!asked.is_answered_by(&answer), "not a response");
        answer[2] |= 0x80;
        assert!(asked.is_answered_by(&answer));
        let mut other_name = query(7, "example.net");
        other_name[2] |= 0x80;
        assert!(!asked.is_answered_by(&other_name));
        answer[1] = 8;
        assert!(!asked.is_answered_by(&answer), "another id");
    }

    #[test]
    fn what_is_no_query_is_not_taken() {
        let good = query(1, "a.b");
        assert!(Query::parse(&good).is_some());
        assert!(Query::parse(&good[..good.len() - 1]).is_none(), "cut off");
        for (at, value, what) in [(2, 0x81, "response"), (2, 0x29, "update"), (5, 2, "two questions")] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Query::parse(&bad).is_none(), "{what}");
        }
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        assert!(Query::parse(&pointer).is_none(), "compressed");
        assert!(Query::parse(&query(1, &["a"; 130].join("."))).is_none(), "name too long");
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_guest_or_a_server_panic(message: Vec<u8>, reply: Vec<u8>) {
            if let Some(query) = Query::parse(&message) {
                query.is_answered_by(&reply);
                query.is_answered_by(&query.truncated());
            }
        }

        #[test]
        fn mutated_queries_do_not_panic(at in 0usize..40, value: u8, cut in 0usize..40) {
            let mut message = query(1, "www.example.com");
            let length = message.len();
            message[at % length] = value;
            message.truncate(length - cut % length);
            if let Some(query) = Query::parse(&message) {
                prop_assert!(query.is_answered_by(&query.answer(Code::Refused)));
            }
        }
    }
}
