//! Certificates as clients meet them.

use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_edge::certs::{self, CertsError};

use crate::support::Edge;

fn scratch() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(dir.path().join("tls")).unwrap();
    (dir, path)
}

fn read(path: &Utf8Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn every_name_a_client_uses_is_accepted() {
    let edge = Edge::start().await;
    for name in
        ["sbx.localhost", "api.sbx.localhost", "49983-iabc.sbx.localhost", "localhost", "127.0.0.1", "::1"]
    {
        edge.connect_tls(name, &["h2", "http/1.1"]).await;
    }
    edge.stop().await;
}

#[tokio::test]
async fn the_client_chooses_the_version() {
    let edge = Edge::start().await;
    for (offered, chosen) in [
        (vec!["h2", "http/1.1"], Some("h2")),
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let stream = edge.connect_tls("sbx.localhost", &offered).await;
        let got = stream.get_ref().1.alpn_protocol().map(|protocol| std::str::from_utf8(protocol).unwrap());
        assert_eq!(got, chosen, "{offered:?}");
    }
    edge.stop().await;
}

#[test]
fn making_certificates_twice_changes_nothing() {
    let (_dir, path) = scratch();
    let files = certs::ensure(&path, "sbx.localhost:3000", None).unwrap();
    let before: Vec<String> = [&files.ca, &files.leaf, &files.leaf_key].map(|path| read(path)).into();
    assert_eq!(certs::ensure(&path, "sbx.localhost:3000", None).unwrap(), files);
    let after: Vec<String> = [&files.ca, &files.leaf, &files.leaf_key].map(|path| read(path)).into();
    assert_eq!(before, after);
    for key in [&files.ca_key, &files.leaf_key] {
        let mode = std::fs::metadata(key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_ne!(read(&files.ca), read(&files.leaf));
}

#[test]
fn a_new_domain_gets_a_new_leaf_from_the_same_authority() {
    let (_dir, path) = scratch();
    let files = certs::ensure(&path, "one.localhost", None).unwrap();
    let (ca, leaf) = (read(&files.ca), read(&files.leaf));
    certs::ensure(&path, "two.localhost", None).unwrap();
    assert_eq!(read(&files.ca), ca);
    let second = read(&files.leaf);
    assert_ne!(second, leaf);
    // It is accepted as it is, which is checked against the authority on disk.
    certs::ensure(&path, "two.localhost", None).unwrap();
    assert_eq!(read(&files.leaf), second);
}

#[test]
fn a_damaged_leaf_is_made_anew_and_a_damaged_authority_is_an_error() {
    let (_dir, path) = scratch();
    let files = certs::ensure(&path, "sbx.localhost", None).unwrap();
    for damaged in [&files.leaf, &files.leaf_key] {
        std::fs::write(damaged, "damaged").unwrap();
        certs::ensure(&path, "sbx.localhost", None).unwrap();
        assert!(read(damaged).starts_with("-----BEGIN"));
    }
    let (_other_dir, other) = scratch();
    let others = certs::ensure(&other, "sbx.localhost", None).unwrap();
    std::fs::copy(&others.ca_key, &files.ca_key).unwrap();
    let result = certs::ensure(&path, "sbx.localhost", None);
    assert!(matches!(result, Err(CertsError::BrokenAuthority { .. })), "{result:?}");
    std::fs::remove_file(&files.ca_key).unwrap();
    let result = certs::ensure(&path, "sbx.localhost", None);
    assert!(matches!(result, Err(CertsError::BrokenAuthority { .. })), "{result:?}");
}

#[test]
fn the_bundle_has_the_hosts_roots_and_the_authority() {
    let (dir, path) = scratch();
    let host = Utf8PathBuf::try_from(dir.path().join("host.pem")).unwrap();
    for roots in ["root one", "root two\n"] {
        std::fs::write(&host, roots).unwrap();
        let files = certs::ensure(&path, "sbx.localhost", Some(&host)).unwrap();
        assert_eq!(read(&files.bundle), format!("{}\n{}", roots.trim_end(), read(&files.ca)));
    }
    std::fs::remove_file(&host).unwrap();
    let result = certs::ensure(&path, "sbx.localhost", Some(&host));
    assert!(matches!(result, Err(CertsError::Read { .. })), "{result:?}");
}
