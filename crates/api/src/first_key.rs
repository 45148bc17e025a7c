//! The key that a new server makes for its owner.

use sandbar_control::{Control, KeyMask, NewApiKey, ReadError};
use sandbar_model::Secret;
use sandbar_wire::api_key::ApiKey;

/// Why there is no first key.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError<E: std::error::Error + 'static> {
    /// The database did not answer.
    #[error("look for API keys, or add the first")]
    Control(#[source] ReadError),
    /// The key could not be handed to the owner.
    #[error("keep the first API key")]
    Keep(#[source] E),
}

/// Makes a key for the default team out of `random`, unless there is a key already.
///
/// `keep` gets the key's text and must hand it to the owner durably; only then is its hash stored, so that a crash in
/// between leaves no key that nobody has. Returns whether one was made.
pub async fn ensure_first_key<E: std::error::Error + 'static>(
    control: &Control,
    random: [u8; 20],
    keep: impl FnOnce(&Secret) -> Result<(), E>,
) -> Result<bool, FirstKeyError<E>> {
    if control.has_api_keys().await.map_err(FirstKeyError::Control)? {
        return Ok(false);
    }
    let key = ApiKey::from_random(random);
    keep(&Secret::new(key.expose())).map_err(FirstKeyError::Keep)?;
    let new = NewApiKey {
        name: "First key".to_owned(),
        hash: key.hash(),
        mask: KeyMask {
            prefix: key.prefix().to_owned(),
            value_length: u32::try_from(key.value_length()).unwrap_or(u32::MAX),
            first: key.first().to_owned(),
            last: key.last().to_owned(),
        },
    };
    control.add_api_key(new).await.map_err(FirstKeyError::Control)?;
    Ok(true)
}
