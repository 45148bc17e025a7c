//! Sandbox ids in paths.

use super::ApiError;

/// The id in a path segment: `<id>`, or `<id>-<client id>` as clients before 2.0 write it.
///
/// What stands behind the dash is dropped; a second dash is an error. Sources: contract/control-api.md §2.5,
/// contract/client-versions.md §2.2 rule 5.
pub fn parse_sandbox_id(segment: &str) -> Result<&str, ApiError> {
    let (id, client) = segment.split_once('-').unwrap_or((segment, ""));
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if id.is_empty() || id.len() > 63 || !id.bytes().all(fits) || client.contains('-') {
        return Err(ApiError::InvalidSandboxId);
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_is_dropped() {
        assert_eq!(parse_sandbox_id("iabc"), Ok("iabc"));
        assert_eq!(parse_sandbox_id("iabc-6532622b"), Ok("iabc"));
    }

    #[test]
    fn anything_else_is_no_id() {
        for bad in ["", "-", "-6532622b", "i-a-b", "I", "i/a", "ä", &"a".repeat(64)] {
            assert_eq!(parse_sandbox_id(bad), Err(ApiError::InvalidSandboxId), "{bad:?}");
        }
    }
}
