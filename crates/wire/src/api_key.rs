//! API keys: `e2b_` and lower-case hex. Only their SHA-256 is kept.

use sha2::{Digest, Sha256};

const PREFIX: &str = "e2b_";

/// Longer than any key we make; what is longer is not even decoded.
const VALUE_LEN_MAX: usize = 256;

/// A key as clients show it in `X-API-KEY`. Source: contract/control-api.md §1.4, §10.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    value: String,
    bytes: Vec<u8>,
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// It does not begin with `e2b_`.
    #[error("the key does not begin with e2b_")]
    Prefix,
    /// What follows is not hex.
    #[error("the key is not hexadecimal")]
    NotHex,
}

impl ApiKey {
    /// The key with these 20 random bytes: `e2b_` and 40 digits.
    pub fn from_random(random: [u8; 20]) -> Self {
        Self { value: hex::encode(random), bytes: random.to_vec() }
    }

    /// The key itself. The name is long so that its uses are found.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", self.value)
    }

    /// SHA-256 of the decoded key: what is stored and looked up.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// What stands before the secret part.
    pub fn prefix(&self) -> &'static str {
        PREFIX
    }

    /// How many characters the secret part has.
    pub fn value_length(&self) -> usize {
        self.value.len()
    }

    /// The first two characters of the secret part, which may be shown.
    pub fn first(&self) -> &str {
        self.value.get(..2).unwrap_or_default()
    }

    /// The last four characters of the secret part, which may be shown.
    pub fn last(&self) -> &str {
        self.value.len().checked_sub(4).and_then(|at| self.value.get(at..)).unwrap_or_default()
    }
}

impl std::str::FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let value = text.strip_prefix(PREFIX).ok_or(ApiKeyError::Prefix)?;
        if value.is_empty() || value.len() > VALUE_LEN_MAX {
            return Err(ApiKeyError::NotHex);
        }
        let bytes = hex::decode(value).map_err(|_| ApiKeyError::NotHex)?;
        Ok(Self { value: value.to_owned(), bytes })
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_key_passes_the_check_of_clients_and_comes_back() {
        let key = ApiKey::from_random([0xab; 20]);
        let text = key.expose();
        assert_eq!(text, format!("e2b_{}", "ab".repeat(20)));
        assert_eq!(text.parse::<ApiKey>().unwrap().hash(), key.hash());
        assert_eq!((key.first(), key.last(), key.value_length()), ("ab", "abab", 40));
        assert_eq!(format!("{key:?}"), "ApiKey(…)");
    }

    #[test]
    fn the_hash_is_of_the_decoded_key() {
        let key: ApiKey = "e2b_00".parse().unwrap();
        assert_eq!(
            hex::encode(key.hash()),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    #[test]
    fn anything_else_is_no_key() {
        for (text, want) in [
            ("", ApiKeyError::Prefix),
            ("sk_e2b_00", ApiKeyError::Prefix),
            ("e2b_", ApiKeyError::NotHex),
            ("e2b_0", ApiKeyError::NotHex),
            ("e2b_zz", ApiKeyError::NotHex),
        ] {
            assert_eq!(text.parse::<ApiKey>(), Err(want), "{text:?}");
        }
        assert_eq!(format!("e2b_{}", "0".repeat(300)).parse::<ApiKey>(), Err(ApiKeyError::NotHex));
    }
}
