//! A port of a broker that asks who comes, by TLS.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::port::free_port;
use crate::process::redis::Certificates;

/// What opens the port.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A password, by SASL: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    Password(Login),
    /// A certificate of the port's own authority.
    Certificate,
}

/// Who may use the port.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: &'static str,
    /// The user's password, without quotes and brackets.
    pub password: &'static str,
}

/// A port with TLS.
#[derive(Debug)]
pub struct SecuredPort {
    port: u16,
    certificates: Certificates,
    entry: Entry,
}

impl SecuredPort {
    pub(super) fn prepare(entry: &Entry, folder: &Path) -> Self {
        let certificates = Certificates::write_to(folder);
        let read = |path: PathBuf| fs::read_to_string(path).expect("it was written just now");
        let key = read(certificates.server_key());
        let store = key + &read(certificates.server_certificate());
        fs::write(keystore(folder), store).expect("a test directory can be written");
        Self {
            port: free_port(),
            certificates,
            entry: entry.clone(),
        }
    }

    /// `127.0.0.1:PORT`, as `bootstrap.servers` takes it.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the port shows, and what a client may show it.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    pub(super) fn listener(&self) -> String {
        format!("SECURED://127.0.0.1:{}", self.port)
    }

    /// What `StorageTool format` has to store of the user.
    pub(super) fn credentials(&self) -> Vec<String> {
        let Entry::Password(Login { user, password }) = &self.entry else {
            return Vec::new();
        };
        let of = |mechanism| format!("{mechanism}=[name={user},password={password}]");
        let add = || "--add-scram".to_owned();
        vec![add(), of("SCRAM-SHA-256"), add(), of("SCRAM-SHA-512")]
    }

    pub(super) fn properties(&self, folder: &Path) -> Vec<(&'static str, String)> {
        let (protocol, own) = match &self.entry {
            Entry::Password(login) => ("SASL_SSL", of_login(login)),
            Entry::Certificate => ("SSL", self.of_certificates()),
        };
        let map = format!("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:{protocol}");
        let keystore = keystore(folder).display().to_string();
        let mut all = vec![
            ("listener.security.protocol.map", map),
            ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
            ("listener.name.secured.ssl.keystore.type", "PEM".to_owned()),
            ("listener.name.secured.ssl.keystore.location", keystore),
        ];
        all.extend(own);
        all
    }

    fn of_certificates(&self) -> Vec<(&'static str, String)> {
        let authority = self.certificates.authority().display().to_string();
        vec![
            (
                "listener.name.secured.ssl.client.auth",
                "required".to_owned(),
            ),
            (
                "listener.name.secured.ssl.truststore.type",
                "PEM".to_owned(),
            ),
            ("listener.name.secured.ssl.truststore.location", authority),
        ]
    }
}

fn of_login(Login { user, password }: &Login) -> Vec<(&'static str, String)> {
    let module = "org.apache.kafka.common.security";
    let scram = || format!("{module}.scram.ScramLoginModule required;");
    let plain = format!("{module}.plain.PlainLoginModule required user_{user}=\"{password}\";");
    vec![
        (
            "listener.name.secured.sasl.enabled.mechanisms",
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
        ),
        ("listener.name.secured.plain.sasl.jaas.config", plain),
        (
            "listener.name.secured.scram-sha-256.sasl.jaas.config",
            scram(),
        ),
        (
            "listener.name.secured.scram-sha-512.sasl.jaas.config",
            scram(),
        ),
    ]
}

fn keystore(folder: &Path) -> PathBuf {
    folder.join("keystore.pem")
}
