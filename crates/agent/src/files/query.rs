//! Query parameters of `/files`.

use http::StatusCode;

use crate::accounts::{Accounts, User};
use crate::auth::{self, UnknownUser};
use crate::body::{self, Answer, Refusal};
use crate::guest::Settings;

/// The parameters that both directions take, decoded; `+` is a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) path: Option<String>,
    pub(super) username: Option<String>,
    pub(super) signature: Option<String>,
    /// Unix seconds.
    pub(super) signature_expiration: Option<i64>,
}

impl Query {
    /// Unknown parameters are ignored, and of repeated ones the first counts.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Box<Answer>> {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match key.as_ref() {
                "path" => set_first(&mut parsed.path, || value.into_owned()),
                "username" => set_first(&mut parsed.username, || value.into_owned()),
                "signature" => set_first(&mut parsed.signature, || value.into_owned()),
                "signature_expiration" if parsed.signature_expiration.is_none() => {
                    let seconds = value.parse().map_err(|_| {
                        let message = "Invalid format for parameter signature_expiration: not an integer";
                        Box::new(body::text(StatusCode::BAD_REQUEST, message))
                    })?;
                    parsed.signature_expiration = Some(seconds);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// The user a transfer is made as. The one in `Authorization` means nothing here.
pub(super) fn user_of(query: &Query, settings: &Settings, accounts: &Accounts) -> Result<User, Refusal> {
    find_user(query.username.as_deref(), settings, accounts)
}

/// The user with this name, or the default one where none is named.
pub(super) fn find_user(
    named: Option<&str>,
    settings: &Settings,
    accounts: &Accounts,
) -> Result<User, Refusal> {
    let named = named.filter(|name| !name.is_empty());
    auth::caller(named, settings, accounts).map_err(|unknown| {
        let name = match unknown {
            UnknownUser::Named(name) | UnknownUser::Default(name) => name,
        };
        Refusal::unauthorized(format!("error looking up user '{name}': user: unknown user {name}"))
    })
}

fn set_first(slot: &mut Option<String>, value: impl FnOnce() -> String) {
    if slot.is_none() {
        *slot = Some(value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_is_a_space_and_the_first_value_counts() {
        let query = Query::parse(Some("path=a+b%2Bc&path=x&signature_expiration=-5&other=1")).unwrap();
        assert_eq!(query.path.as_deref(), Some("a b+c"));
        assert_eq!(query.signature_expiration, Some(-5));
        assert_eq!(
            Query::parse(Some("signature_expiration=abc")).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
