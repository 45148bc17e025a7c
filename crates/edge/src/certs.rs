//! The local certificate authority, and the certificate by which clients know this server.
//!
//! ```text
//!  tls/ca.pem      the authority; Node: NODE_EXTRA_CA_CERTS
//!  tls/ca.key      its key, mode 0600
//!  tls/leaf.pem    the certificate for `*.<domain>`, `<domain>` and this host's loopback names
//!  tls/leaf.key    its key, mode 0600
//!  tls/bundle.pem  the host's roots and the authority; Python: SSL_CERT_FILE replaces the default roots
//! ```
//!
//! Authority and leaf are two certificates, because some clients refuse one that is both. The authority is
//! made once and kept, since users tell their tools to trust it; the leaf is made anew when it is about to
//! expire or does not fit.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Clients' clocks may be behind ours.
const BACKDATED: Duration = DAY;

const CA_VALID: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// The longest that all platforms accept of a leaf.
const LEAF_VALID: Duration = Duration::from_secs(398 * 24 * 60 * 60);

/// A leaf that expires sooner is made anew. Checked at each start, so this is also how long a server may run.
const LEAF_RENEWED: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// A host's bundle of roots is a few hundred KiB.
const HOST_BUNDLE_MAX: u64 = 16 << 20;

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority.
    pub ca: Utf8PathBuf,
    /// The authority's key.
    pub ca_key: Utf8PathBuf,
    /// The server's certificate.
    pub leaf: Utf8PathBuf,
    /// The server's key.
    pub leaf_key: Utf8PathBuf,
    /// The host's roots and the authority in one file.
    pub bundle: Utf8PathBuf,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file or folder cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host's bundle is too large to be one.
    #[error("{path} is larger than {HOST_BUNDLE_MAX} bytes")]
    HostBundleTooLarge {
        /// Which.
        path: Utf8PathBuf,
    },
    /// One of the authority's two files is there without the other, or does not fit it.
    #[error("{ca} and {key} do not belong together: remove both to get a new authority")]
    BrokenAuthority {
        /// The certificate.
        ca: Utf8PathBuf,
        /// The key.
        key: Utf8PathBuf,
    },
    /// The domain cannot stand in a certificate.
    #[error("make a certificate for {domain}")]
    Make {
        /// The domain.
        domain: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// Makes what is missing in `dir`, renews what is about to expire, and says where everything is.
///
/// `domain` may carry a port. `host_bundle` is the PEM file of the roots that this host trusts. Does blocking
/// file I/O. Two calls at once for the same folder are not safe; the data directory has one server.
///
/// # Errors
/// When a file cannot be read or written, or the authority is damaged: it is never replaced silently.
pub fn ensure(dir: &Utf8Path, domain: &str, host_bundle: Option<&Utf8Path>) -> Result<TlsFiles, CertsError> {
    let files = TlsFiles {
        ca: dir.join("ca.pem"),
        ca_key: dir.join("ca.key"),
        leaf: dir.join("leaf.pem"),
        leaf_key: dir.join("leaf.key"),
        bundle: dir.join("bundle.pem"),
    };
    let domain = domain.split(':').next().unwrap_or_default().to_ascii_lowercase();
    std::fs::create_dir_all(dir).map_err(|source| CertsError::Write { path: dir.to_owned(), source })?;

    let authority = ensure_authority(&files)?;
    if !leaf_fits(&files, &domain, SystemTime::now() + LEAF_RENEWED) {
        make_leaf(&files, &domain, &authority)?;
    }
    write_bundle(&files, host_bundle)?;
    Ok(files)
}

/// The names and addresses of the leaf.
fn names_of(domain: &str) -> Vec<String> {
    let mut names = vec![format!("*.{domain}"), domain.to_owned()];
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.dedup();
    names
}

fn ensure_authority(files: &TlsFiles) -> Result<Issuer<'static, KeyPair>, CertsError> {
    let broken = || CertsError::BrokenAuthority { ca: files.ca.clone(), key: files.ca_key.clone() };
    let make = |source| CertsError::Make { domain: "the local authority".to_owned(), source };
    match (read(&files.ca)?, read(&files.ca_key)?) {
        (Some(ca), Some(key)) => {
            let key = KeyPair::from_pem(&key).map_err(|_| broken())?;
            // The certificate holds its key's public half as it is.
            let certificate = CertificateDer::from_pem_slice(ca.as_bytes()).map_err(|_| broken())?;
            let public = key.public_key_raw();
            if !certificate.windows(public.len()).any(|window| window == public) {
                return Err(broken());
            }
            Ok(Issuer::new(authority_params(&key), key))
        }
        (None, None) => {
            let key = KeyPair::generate().map_err(make)?;
            let params = authority_params(&key);
            let certificate = params.self_signed(&key).map_err(make)?;
            write(&files.ca_key, &key.serialize_pem(), Access::Owner)?;
            write(&files.ca, &certificate.pem(), Access::All)?;
            Ok(Issuer::new(params, key))
        }
        _ => Err(broken()),
    }
}

/// The same for the same key, so that a leaf made later names its issuer correctly.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity(CA_VALID);
    // Authorities of several data directories may be trusted side by side; their names must differ.
    let mark: String = key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::OrganizationName, "Sandbar");
    params.distinguished_name.push(DnType::CommonName, format!("Sandbar local authority {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn make_leaf(files: &TlsFiles, domain: &str, authority: &Issuer<'_, KeyPair>) -> Result<(), CertsError> {
    let make = |source| CertsError::Make { domain: domain.to_owned(), source };
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::new(names_of(domain)).map_err(make)?;
    debug_assert!(params.subject_alt_names.iter().any(|name| matches!(name, SanType::IpAddress(_))));
    (params.not_before, params.not_after) = validity(LEAF_VALID);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, domain);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, authority).map_err(make)?;
    // A crash between the two leaves a pair that does not fit and is made anew.
    write(&files.leaf_key, &key.serialize_pem(), Access::Owner)?;
    write(&files.leaf, &certificate.pem(), Access::All)
}

fn validity<T: From<SystemTime>>(length: Duration) -> (T, T) {
    let now = SystemTime::now();
    ((now - BACKDATED).into(), (now - BACKDATED + length).into())
}

/// Whether a client that trusts our authority would accept the leaf for every name at `then`.
fn leaf_fits(files: &TlsFiles, domain: &str, then: SystemTime) -> bool {
    let fits = || -> Option<()> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let leaf = CertificateDer::from_pem_file(&files.leaf).ok()?;
        let key = PrivateKeyDer::from_pem_file(&files.leaf_key).ok()?;
        rustls::sign::CertifiedKey::from_der(vec![leaf.clone()], key, &provider).ok()?;

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.ca).ok()?).ok()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
        let then = UnixTime::since_unix_epoch(then.duration_since(SystemTime::UNIX_EPOCH).ok()?);
        for name in names_of(domain) {
            let name = ServerName::try_from(name.replace('*', "49983-any")).ok()?;
            verifier.verify_server_cert(&leaf, &[], &name, &[], then).ok()?;
        }
        Some(())
    };
    fits().is_some()
}

fn write_bundle(files: &TlsFiles, host_bundle: Option<&Utf8Path>) -> Result<(), CertsError> {
    let mut bundle = String::new();
    if let Some(path) = host_bundle {
        let source = |source| CertsError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(source)?.len() > HOST_BUNDLE_MAX {
            return Err(CertsError::HostBundleTooLarge { path: path.to_owned() });
        }
        bundle = std::fs::read_to_string(path).map_err(source)?;
        if !bundle.ends_with('\n') {
            bundle.push('\n');
        }
    }
    bundle.push_str(&read(&files.ca)?.unwrap_or_default());
    if read(&files.bundle)?.as_ref() == Some(&bundle) {
        return Ok(());
    }
    write(&files.bundle, &bundle, Access::All)
}

/// Who may read a file.
#[derive(Clone, Copy)]
enum Access {
    Owner = 0o600,
    All = 0o644,
}

fn read(path: &Utf8Path) -> Result<Option<String>, CertsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertsError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces a file in one step, so that a reader finds the old one or the new one.
fn write(path: &Utf8Path, text: &str, access: Access) -> Result<(), CertsError> {
    let new = Utf8PathBuf::from(format!("{path}.new"));
    let result = (|| {
        if let Err(error) = std::fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(access as u32).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    result.map_err(|source| CertsError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_renewed_before_it_expires() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let path = Utf8Path::from_path(dir.path()).expect("a path in UTF-8");
        let files = ensure(path, "sbx.localhost", None).expect("certificates");
        let fits_in = |days| leaf_fits(&files, "sbx.localhost", SystemTime::now() + DAY * days);
        assert!(fits_in(0));
        assert!(fits_in(396));
        assert!(!fits_in(398));
        assert!(!leaf_fits(&files, "other.localhost", SystemTime::now()));
    }
}
