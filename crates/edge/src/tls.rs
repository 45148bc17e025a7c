//! The server's side of TLS: HTTP/2 or HTTP/1.1 by ALPN, the certificate from files.

use std::sync::Arc;

use camino::Utf8PathBuf;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::certs::TlsFiles;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("read {path}")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key cannot be used together.
    #[error("use certificate {path}")]
    Use {
        /// The certificate.
        path: Utf8PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Loads the certificate and its key.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let read = |path: &Utf8PathBuf| {
        let path = path.clone();
        move |source| TlsError::Read { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.leaf)
        .map_err(read(&files.leaf))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read(&files.leaf))?;
    let key = PrivateKeyDer::from_pem_file(&files.leaf_key).map_err(read(&files.leaf_key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let use_leaf = |source| TlsError::Use { path: files.leaf.clone(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(use_leaf)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(use_leaf)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
