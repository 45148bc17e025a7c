//! The certificates that a host trusts beyond those of its distribution.
//!
//! Behind a proxy that inspects TLS a host trusts a certificate of its own, and a guest must trust it too or
//! reaches nothing. Certificates that the host's distribution ships are left out: the guest's distribution has
//! its own opinion on those, and a newer one.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use camino::Utf8Path;
use sha2::{Digest, Sha256};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// One certificate: the base64 text between the PEM lines, without white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Certificate(String);

impl Certificate {
    /// A name made from what it is, with the ending that `update-ca-certificates` looks for.
    pub(crate) fn file_name(&self) -> String {
        format!("host-{}.crt", &hex::encode(Sha256::digest(&self.0))[..16])
    }

    pub(crate) fn pem(&self) -> String {
        let bytes = self.0.as_bytes().chunks(64);
        let lines: Vec<_> = bytes.map(|line| String::from_utf8_lossy(line)).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// All certificates of a PEM text, each once.
pub(crate) fn parse(pem: &str) -> BTreeSet<Certificate> {
    let bodies = pem.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    bodies.map(|(body, _)| Certificate(body.split_ascii_whitespace().collect())).collect()
}

/// What is in the host's `bundle` but neither in `shipped` (a directory of the host's distribution, with folders)
/// nor in the guest's bundle.
pub(crate) fn missing(
    bundle: &Utf8Path,
    shipped: &Utf8Path,
    guest_bundle: &Utf8Path,
) -> io::Result<Vec<Certificate>> {
    let mut known = parse(&read(guest_bundle)?);
    gather(shipped, &mut known)?;
    Ok(parse(&read(bundle)?).into_iter().filter(|certificate| !known.contains(certificate)).collect())
}

fn gather(dir: &Utf8Path, into: &mut BTreeSet<Certificate>) -> io::Result<()> {
    let entries = match dir.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            gather(entry.path(), into)?;
        } else if entry.path().extension() == Some("crt") {
            into.extend(parse(&read(entry.path())?));
        }
    }
    Ok(())
}

/// Comments in a bundle may be in any encoding. A bundle that does not exist has no certificates.
fn read(path: &Utf8Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        format!("# a comment\n{BEGIN}\n{body}\n{END}\n")
    }

    #[test]
    fn only_what_the_host_added_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        fs::create_dir_all(dir.join("shipped/mozilla")).unwrap();
        fs::write(dir.join("shipped/mozilla/old.crt"), pem("b2xk")).unwrap();
        let bundle = [pem("b2xk"), pem("Y29t\nbW9u"), pem("b3du")].concat();
        fs::write(dir.join("bundle"), bundle).unwrap();
        fs::write(dir.join("guest"), pem("Y29tbW9u")).unwrap();
        let missing = missing(&dir.join("bundle"), &dir.join("shipped"), &dir.join("guest")).unwrap();
        assert_eq!(missing, [Certificate("b3du".to_owned())]);
    }

    #[test]
    fn a_certificate_is_written_as_it_is_read() {
        let certificate = Certificate("A".repeat(130));
        assert_eq!(certificate.pem().lines().map(str::len).max(), Some(64));
        assert_eq!(parse(&certificate.pem()), BTreeSet::from([certificate]));
    }
}
