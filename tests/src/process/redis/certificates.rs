//! Certificates of an authority that exists for one test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::ExtendedKeyUsagePurpose;

use crate::process::authority::{Authority, Subject};

/// PEM files: an authority, and what it signed for a server on loopback and for a client.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them and writes them to a folder.
    pub(in crate::process) fn write_to(folder: &Path) -> Self {
        let authority = Authority::new();
        let write = |name: &str, pem: String| {
            fs::write(folder.join(name), pem).expect("a test directory can be written");
        };
        write("authority.pem", authority.certificate());
        let server = Subject {
            hosts: &["localhost", "127.0.0.1"],
            ..Subject::named("server")
        };
        let client = Subject::named("client");
        for (subject, purpose) in [
            (server, ExtendedKeyUsagePurpose::ServerAuth),
            (client, ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let signed = authority.sign(subject, purpose);
            write(&format!("{}.pem", subject.name), signed.certificate);
            write(&format!("{}.key", subject.name), signed.key);
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

    /// The private key of the server's certificate.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.folder.join("server.key")
    }
}
