//! `Content-Disposition`, both ways: the name of a download, and the name and field of an uploaded part.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// Bytes of an extended parameter that need no encoding. Source: RFC 5987 `attr-char`.
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The header of a download: bare where the name is a token, quoted where it is ASCII, else encoded.
pub(super) fn inline(name: &str) -> String {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_quotable = |byte: u8| (0x20..0x7f).contains(&byte);
    if !name.is_empty() && name.bytes().all(is_token) {
        format!("inline; filename={name}")
    } else if name.bytes().all(is_quotable) {
        format!("inline; filename=\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("inline; filename*=utf-8''{}", utf8_percent_encode(name, EXTENDED))
    }
}

/// What the header of an uploaded part says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FormData {
    /// The form field.
    pub(super) name: Option<String>,
    /// The file's name, directories included. Nothing in it is percent-decoded, except in the extended form.
    pub(super) filename: Option<String>,
}

/// Reads the header of a part. Names may be raw UTF-8.
pub(super) fn parse_form_data(header: &[u8]) -> FormData {
    let text = String::from_utf8_lossy(header);
    let mut parsed = FormData::default();
    let mut extended = None;
    for (key, value) in parameters(&text) {
        match key.as_str() {
            "name" => parsed.name = Some(value),
            "filename" => parsed.filename = Some(value),
            "filename*" => extended = decode_extended(&value),
            _ => {}
        }
    }
    parsed.filename = extended.or(parsed.filename);
    parsed
}

/// The parameters behind the disposition type: lower-case keys, values without their quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((key, after)) = rest.split_once('=') {
        let (value, remaining) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, remaining) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), remaining)
            }
        };
        found.push((key.trim_matches([';', ' ', '\t']).to_ascii_lowercase(), value));
        rest = remaining;
    }
    found
}

/// A quoted value up to its closing quote, and what follows the next `;`.
///
/// A backslash escapes a quote or a backslash and stands for itself elsewhere: browsers send `C:\dir\file` as it is.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, quoted[at + 1..].split_once(';').map_or("", |(_, rest)| rest)),
            '\\' if matches!(chars.peek(), Some((_, '"' | '\\'))) => {
                value.extend(chars.next().map(|(_, escaped)| escaped));
            }
            _ => value.push(char),
        }
    }
    (value, "")
}

fn decode_extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    percent_decode(encoded.as_bytes()).decode_utf8().ok().map(|name| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn downloads_are_named_as_plainly_as_possible() {
        assert_eq!(inline("a.txt"), "inline; filename=a.txt");
        assert_eq!(inline("a b\".txt"), "inline; filename=\"a b\\\".txt\"");
        assert_eq!(inline("文档.pdf"), "inline; filename*=utf-8''%E6%96%87%E6%A1%A3.pdf");
        assert_eq!(inline("a\nb"), "inline; filename*=utf-8''a%0Ab");
    }

    #[track_caller]
    fn check(header: &str, name: &str, filename: Option<&str>) {
        let want = FormData { name: Some(name.into()), filename: filename.map(str::to_owned) };
        assert_eq!(parse_form_data(header.as_bytes()), want, "{header}");
    }

    #[test]
    fn parts_keep_their_directories_and_their_encoding() {
        check("form-data; name=\"file\"; filename=\"a/ä.txt\"", "file", Some("a/ä.txt"));
        check("form-data; name=file", "file", None);
        check("form-data; filename=\"a%22b;c=d\"; name=\"file\"", "file", Some("a%22b;c=d"));
        check("form-data; name=\"file\"; filename=\"a\\\"b\\c\"", "file", Some("a\"b\\c"));
        check("form-data; name=\"file\"; filename=\"x\"; filename*=UTF-8''%e4%b8%ad", "file", Some("中"));
        check("form-data; name=\"file\"; filename=\"\"", "file", Some(""));
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in prop::collection::vec(any::<u8>(), 0..80)) {
            parse_form_data(&header);
        }

        #[test]
        fn names_survive_quoting(name in "[^\\\\\"\u{0}-\u{1f}]{0,30}") {
            let header = format!("form-data; name=\"file\"; filename=\"{name}\"");
            prop_assert_eq!(parse_form_data(header.as_bytes()).filename, Some(name));
        }
    }
}
