//! What a caller can do about an error.

/// The kind of an error, from which the API derives its status code.
///
/// Every public error type of the host crates has a `kind()`; the text is for people, the kind is for
/// programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong; repeating it unchanged is useless.
    Invalid,
    /// The thing named does not exist, or not for this caller.
    NotFound,
    /// The thing named is in a state that does not allow this now.
    Conflict,
    /// A limit that the caller's account has; repeating at once is useless.
    QuotaExceeded,
    /// There is no room at the moment and nothing was done: safe to repeat.
    Capacity,
    /// A part we depend on does not answer; nothing is known to be wrong with the request.
    Unavailable,
    /// Our fault.
    Internal,
}
