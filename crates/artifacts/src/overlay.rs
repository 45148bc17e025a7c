//! The options of an overlay mount.

use camino::Utf8PathBuf;

/// The kernel takes one page of options, with its ending NUL.
pub(crate) const OPTIONS_BYTES_MAX: usize = 4095;

/// `lowerdir=dir:dir:…`, topmost first as the kernel wants it, with what separates directories escaped.
pub(crate) fn lower(lowest_first: &[Utf8PathBuf]) -> String {
    let escaped =
        |dir: &Utf8PathBuf| dir.as_str().replace('\\', r"\\").replace(':', r"\:").replace(',', r"\,");
    let topmost_first: Vec<_> = lowest_first.iter().rev().map(escaped).collect();
    format!("lowerdir={}", topmost_first.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_layer_comes_first_and_separators_are_escaped() {
        assert_eq!(lower(&["/low".into(), "/a:b,c".into()]), r"lowerdir=/a\:b\,c:/low");
    }
}
