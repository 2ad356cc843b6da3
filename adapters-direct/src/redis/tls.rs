//! TLS of this backend alone: rustls with `ring`, whatever the process has chosen for itself.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

use super::config::{Address, RedisConfig};
use super::error::OpenError;
use crate::config::ClientCertificate;

/// How to make a connection private, and whom to expect at its end.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) server: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.server).finish()
    }
}

/// Files that the configuration names and that cannot be used, each with its field.
pub(super) fn unusable_files(config: &RedisConfig) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    if let Some(path) = &config.ca_file {
        files.push(("ca_file", roots(path).map(drop)));
    }
    if let Some(ClientCertificate { certificate, key }) = &config.client_certificate {
        let chain = certificates(certificate).map(drop);
        files.push(("client_certificate.certificate", chain));
        files.push(("client_certificate.key", private_key(key).map(drop)));
    }
    let unusable = |(field, read): (_, Result<(), OpenError>)| {
        let error = read.err()?;
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        Some((field, format!("{error}: {cause}")))
    };
    files.into_iter().filter_map(unusable).collect()
}

/// Reads the files that the configuration names; `None` without TLS.
pub(super) fn prepare(config: &RedisConfig, address: &Address) -> Result<Option<Tls>, OpenError> {
    if !address.tls {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OpenError::Roots)?;
    let builder = match &config.ca_file {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder.with_platform_verifier().map_err(OpenError::Roots)?,
    };
    let client = match &config.client_certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = certificates(&files.certificate)?;
            let key = private_key(&files.key)?;
            let client = builder.with_client_auth_cert(chain, key);
            client.map_err(|error| unusable(&files.certificate, error))?
        }
    };
    let server = ServerName::try_from(address.host.as_ref());
    let server = server.map_err(|error| OpenError::Unfit {
        address: address.to_string(),
        reason: format!("its name cannot stand in a certificate: {error}"),
    })?;
    Ok(Some(Tls {
        connector: TlsConnector::from(Arc::new(client)),
        server: server.to_owned(),
    }))
}

/// Says whether a handshake failed by what was said in it, and not by a broken connection.
pub(super) fn is_refusal(error: &std::io::Error) -> bool {
    let said = error.get_ref();
    said.is_some_and(|said| said.is::<rustls::Error>())
}

/// Says whether what came in a handshake was no part of one.
pub(super) fn is_something_else(error: &std::io::Error) -> bool {
    let said = error.get_ref().and_then(|said| said.downcast_ref());
    matches!(said, Some(rustls::Error::InvalidMessage(_)))
}

/// A client that can only find out whether somebody speaks TLS.
pub(super) fn trusting_nobody() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(RootCertStore::empty());
    Ok(TlsConnector::from(Arc::new(builder.with_no_client_auth())))
}

fn roots(path: &Path) -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, error))?;
    if certificates.is_empty() {
        return Err(unusable(path, "it holds no certificate"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, OpenError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::File {
        path: path.to_owned(),
        source: source.into(),
    }
}
