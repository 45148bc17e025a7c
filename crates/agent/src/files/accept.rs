//! Which encoding a download is sent in.

/// The encodings a download can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// Picks the encoding a client likes best, `None` when it accepts neither.
///
/// The highest weight wins, the earlier one among equals. `*` stands for identity, unless that is excluded. With
/// `identity_only` (ranges and conditions mean the file's own bytes) gzip is not on offer.
pub(super) fn choose(accept_encoding: Option<&str>, identity_only: bool) -> Option<Encoding> {
    let listed: Vec<(String, f32)> =
        accept_encoding.unwrap_or_default().split(',').filter_map(parse).collect();
    let weight_of = |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, weight)| *weight);
    let identity_excluded = match (weight_of("identity"), weight_of("*")) {
        (Some(weight), _) | (None, Some(weight)) => weight == 0.0,
        (None, None) => false,
    };
    if identity_only {
        return (!identity_excluded).then_some(Encoding::Identity);
    }
    let mut best: Option<(Encoding, f32)> = None;
    for (name, weight) in &listed {
        let encoding = match name.as_str() {
            "gzip" => Encoding::Gzip,
            "identity" => Encoding::Identity,
            "*" if identity_excluded => Encoding::Gzip,
            "*" => Encoding::Identity,
            _ => continue,
        };
        if *weight > 0.0 && best.is_none_or(|(_, best)| *weight > best) {
            best = Some((encoding, *weight));
        }
    }
    best.map(|(encoding, _)| encoding).or((!identity_excluded).then_some(Encoding::Identity))
}

/// One member of the list: lower-case name and weight. A weight that cannot be read is 0.
fn parse(member: &str) -> Option<(String, f32)> {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(0.0));
    Some((name, if weight.is_finite() { weight.clamp(0.0, 1.0) } else { 0.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(accept: &str, want: Option<Encoding>) {
        assert_eq!(choose(Some(accept), false), want, "{accept}");
    }

    #[test]
    fn the_highest_weight_wins_and_the_first_among_equals() {
        use Encoding::{Gzip, Identity};
        assert_eq!(choose(None, false), Some(Identity));
        check("", Some(Identity));
        check("gzip, deflate", Some(Gzip));
        check("GZIP;q=0.5, identity", Some(Identity));
        check("identity, gzip", Some(Identity));
        check("br, zstd", Some(Identity));
        check("*", Some(Identity));
        check("*, identity;q=0", Some(Gzip));
        check("gzip;q=0", Some(Identity));
        check("identity;q=0", None);
        check("*;q=0", None);
        check("br, *;q=0", None);
    }

    #[test]
    fn a_range_cannot_be_sent_to_someone_who_excludes_identity() {
        assert_eq!(choose(Some("gzip"), true), Some(Encoding::Identity));
        assert_eq!(choose(Some("gzip, *;q=0"), true), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read(accept in ".*") {
            choose(Some(&accept), false);
        }
    }
}
