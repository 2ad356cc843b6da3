//! Certificates of an authority that exists for one test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// PEM files: an authority, and what it signed for a server on loopback and for a client.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them and writes them to a folder.
    pub(in crate::process) fn write_to(folder: &Path) -> Self {
        let authority = authority();
        let write = |name: &str, pem: String| {
            fs::write(folder.join(name), pem).expect("a test directory can be written");
        };
        write("authority.pem", authority.pem());
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        for (name, names, purpose) in [
            (
                "server",
                names.to_vec(),
                ExtendedKeyUsagePurpose::ServerAuth,
            ),
            ("client", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let (certificate, key) = signed(&authority, name, names, purpose);
            write(&format!("{name}.pem"), certificate);
            write(&format!("{name}.key"), key);
        }
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The authority's certificate, which clients must trust.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// A client's certificate.
    #[must_use]
    pub fn client_certificate(&self) -> PathBuf {
        self.folder.join("client.pem")
    }

    /// The private key of the client's certificate.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.folder.join("client.key")
    }

    pub(in crate::process) fn server_certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    pub(in crate::process) fn server_key(&self) -> PathBuf {
        self.folder.join("server.key")
    }
}

fn parameters(name: &str, names: Vec<String>) -> CertificateParams {
    let mut parameters = CertificateParams::new(names).expect("the names are valid");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = parameters("task tests", Vec::new());
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key can be made");
    CertifiedIssuer::self_signed(parameters, key).expect("a certificate can be signed")
}

/// A certificate and its private key.
fn signed(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    names: Vec<String>,
    purpose: ExtendedKeyUsagePurpose,
) -> (String, String) {
    let mut parameters = parameters(name, names);
    parameters.extended_key_usages = vec![purpose];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = parameters.signed_by(&key, authority);
    let certificate = certificate.expect("a certificate can be signed");
    (certificate.pem(), key.serialize_pem())
}
