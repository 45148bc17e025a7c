//! The media type of a file: by its name, else by its first bytes.

/// First bytes that [`of_bytes`] looks at.
pub(super) const SNIFF_BYTES: usize = 512;

pub(super) const UNKNOWN: &str = "application/octet-stream";

/// By extension. Source: golang/go src/mime/type.go, and the usual names of texts and archives.
pub(super) fn of_name(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "avif" => "image/avif",
        "css" => "text/css; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "gif" => "image/gif",
        "gz" => "application/gzip",
        "htm" | "html" => "text/html; charset=utf-8",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "md" => "text/markdown; charset=utf-8",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "tar" => "application/x-tar",
        "txt" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        "webm" => "video/webm",
        "webp" => "image/webp",
        "xml" => "text/xml; charset=utf-8",
        "zip" => "application/zip",
        _ => return None,
    })
}

/// By content. Knows the usual signatures, and text from everything else.
pub(super) fn of_bytes(first: &[u8]) -> &'static str {
    const SIGNATURES: [(&[u8], &str); 9] = [
        (b"%PDF-", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"\x1f\x8b\x08", "application/x-gzip"),
        (b"PK\x03\x04", "application/zip"),
        (b"\0asm", "application/wasm"),
        (b"<?xml", "text/xml; charset=utf-8"),
    ];
    let known = SIGNATURES.iter().find(|(signature, _)| first.starts_with(signature));
    if let Some((_, media_type)) = known {
        return media_type;
    }
    // Control characters other than white space, escape and form feed do not occur in text.
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31);
    if first.iter().any(is_binary) { UNKNOWN } else { "text/plain; charset=utf-8" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_before_content() {
        assert_eq!(of_name("a.JSON"), Some("application/json"));
        assert_eq!(of_name("Makefile"), None);
        assert_eq!(of_bytes(b"hello"), "text/plain; charset=utf-8");
        assert_eq!(of_bytes(b""), "text/plain; charset=utf-8");
        assert_eq!(of_bytes(b"\x7fELF\x02\x01\x01\x00"), UNKNOWN);
    }
}
