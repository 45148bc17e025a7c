//! Who may call, and as which user.
//!
//! Three questions, asked in this order: does the request carry the access token ([`gate`], all routes but four);
//! does it name a user that exists ([`named_user`]); and, in `/files` alone, does a signature stand in for the token
//! ([`may_transfer`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, header};
use sandbar_wire::envd::ACCESS_TOKEN_HEADER;
use sandbar_wire::envd::files::{Signed, signature};
use sandbar_wire::envd::{Code, RpcError};

use crate::accounts::{Accounts, User};
use crate::body::Refusal;
use crate::guest::{Settings, equal_in_constant_time};

/// Routes that check for themselves or need no check; exact matches only.
const UNGATED: [(Method, &str); 4] =
    [(Method::GET, "/health"), (Method::GET, "/files"), (Method::POST, "/files"), (Method::POST, "/init")];

/// Refuses a request that lacks the access token while one is set.
pub(crate) fn gate(
    settings: &Settings,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if UNGATED.iter().any(|(open_method, open_path)| open_method == method && *open_path == path) {
        return Ok(());
    }
    if settings.admits(token_of(headers)) {
        return Ok(());
    }
    Err(Refusal::unauthorized(
        "unauthorized access, please provide a valid access token or method signing if supported",
    ))
}

/// Whether this transfer of a file is allowed. `signed` are the query parameters, `now` is Unix seconds.
pub(crate) fn may_transfer(
    settings: &Settings,
    headers: &HeaderMap,
    signed: &Signed<'_>,
    given_signature: Option<&str>,
    now: i64,
) -> Result<(), Refusal> {
    let Some(token) = &settings.access_token else {
        return Ok(());
    };
    if let Some(header) = token_of(headers).filter(|header| !header.is_empty()) {
        return match settings.admits(Some(header)) {
            true => Ok(()),
            false => Err(Refusal::unauthorized("access token present in header but does not match")),
        };
    }
    let Some(given) = given_signature else {
        return Err(Refusal::unauthorized("missing signature query parameter"));
    };
    if !equal_in_constant_time(signature(signed, token).as_bytes(), given.as_bytes()) {
        return Err(Refusal::unauthorized("invalid signature"));
    }
    if signed.expiration.is_some_and(|expiration| expiration < now) {
        return Err(Refusal::unauthorized("signature is already expired"));
    }
    Ok(())
}

fn token_of(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(ACCESS_TOKEN_HEADER).map(http::HeaderValue::as_bytes)
}

/// The user in `Authorization: Basic`; the password and other schemes mean nothing.
pub(crate) fn named_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (name, _password) = decoded.split_once(':')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// A user that calls are made as but that the guest does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownUser {
    #[error("invalid username: '{0}'")]
    Named(String),
    #[error("invalid default user: '{0}'")]
    Default(String),
}

impl From<UnknownUser> for RpcError {
    fn from(unknown: UnknownUser) -> Self {
        RpcError::new(Code::Unauthenticated, unknown.to_string())
    }
}

/// The user a call is made as: the named one, else the guest's default.
pub(crate) fn caller(
    named: Option<&str>,
    settings: &Settings,
    accounts: &Accounts,
) -> Result<User, UnknownUser> {
    match named {
        Some(name) => accounts.user(name).cloned().ok_or_else(|| UnknownUser::Named(name.to_owned())),
        None => {
            let name = &settings.default_user;
            accounts.user(name).cloned().ok_or_else(|| UnknownUser::Default(name.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Guest;
    use http::HeaderValue;
    use sandbar_wire::envd::files::Operation;

    fn guarded() -> Settings {
        let guest = Guest::new(None);
        guest.change(|settings| settings.access_token = Some("tok123".into()));
        guest.settings().clone()
    }

    fn with_token(token: &'static str) -> HeaderMap {
        [(http::HeaderName::from_static(ACCESS_TOKEN_HEADER), HeaderValue::from_static(token))]
            .into_iter()
            .collect()
    }

    #[test]
    fn four_routes_pass_without_a_token_and_nothing_like_them_does() {
        let settings = guarded();
        let check = |method, path| gate(&settings, &method, path, &HeaderMap::new()).is_ok();
        assert!(check(Method::GET, "/health") && check(Method::GET, "/files"));
        assert!(check(Method::POST, "/files") && check(Method::POST, "/init"));
        assert!(!check(Method::POST, "/health") && !check(Method::GET, "/files/"));
        assert!(!check(Method::POST, "/files/compose") && !check(Method::GET, "/envs"));
        assert!(gate(&settings, &Method::GET, "/envs", &with_token("tok123")).is_ok());
        assert!(gate(&settings, &Method::GET, "/envs", &with_token("tok12")).is_err());
    }

    const VECTOR: &str = "v1_NusEeHeBFpLh24504GCcGLjsbZK6cTxcYG40tcX8qIw";

    #[track_caller]
    fn refused(headers: HeaderMap, signed: Signed<'_>, signature: Option<&str>, want: &str) {
        let refusal = may_transfer(&guarded(), &headers, &signed, signature, 100).unwrap_err();
        assert_eq!(refusal, Refusal::unauthorized(want));
    }

    #[test]
    fn a_signature_counts_for_exactly_what_it_signed() {
        let read = Signed { path: "hello.txt", operation: Operation::Read, username: "", expiration: None };
        assert_eq!(may_transfer(&guarded(), &HeaderMap::new(), &read, Some(VECTOR), 100), Ok(()));
        let write = Signed { operation: Operation::Write, ..read };
        refused(HeaderMap::new(), write, Some(VECTOR), "invalid signature");
        let other = Signed { username: "user", ..read };
        refused(HeaderMap::new(), other, Some(VECTOR), "invalid signature");
        // Expiry is checked after the signature: adding one to an unlimited signature makes it another.
        let added = Signed { expiration: Some(1), ..read };
        refused(HeaderMap::new(), added, Some(VECTOR), "invalid signature");
        refused(HeaderMap::new(), read, None, "missing signature query parameter");
        let wrong = with_token("wrong");
        refused(wrong, read, Some(VECTOR), "access token present in header but does not match");
    }

    #[test]
    fn a_signature_is_valid_until_the_second_it_names() {
        let signed = |expiration| Signed {
            path: "a",
            operation: Operation::Read,
            username: "",
            expiration: Some(expiration),
        };
        let good = signature(&signed(100), "tok123");
        assert_eq!(may_transfer(&guarded(), &HeaderMap::new(), &signed(100), Some(&good), 100), Ok(()));
        let late = signature(&signed(99), "tok123");
        refused(HeaderMap::new(), signed(99), Some(&late), "signature is already expired");
    }

    #[test]
    fn only_basic_credentials_name_a_user() {
        let named = |value: &'static str| {
            named_user(&[(header::AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect())
        };
        assert_eq!(named("Basic bm9ib2R5LXg6").as_deref(), Some("nobody-x"));
        assert_eq!(named("Bearer abc"), None);
        assert_eq!(named("Basic !"), None);
    }
}
