//! A port of a broker that asks for a password, by TLS.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::port::free_port;
use crate::process::redis::Certificates;

/// Who may use the port.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: &'static str,
    /// The user's password, without quotes and brackets.
    pub password: &'static str,
}

/// A port with TLS and SASL: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
#[derive(Debug)]
pub struct SecuredPort {
    port: u16,
    certificates: Certificates,
    login: Login,
}

impl SecuredPort {
    pub(super) fn prepare(login: &Login, folder: &Path) -> Self {
        let certificates = Certificates::write_to(folder);
        let read = |path: PathBuf| fs::read_to_string(path).expect("it was written just now");
        let key = read(certificates.server_key());
        let store = key + &read(certificates.server_certificate());
        fs::write(keystore(folder), store).expect("a test directory can be written");
        Self {
            port: free_port(),
            certificates,
            login: login.clone(),
        }
    }

    /// `127.0.0.1:PORT`, as `bootstrap.servers` takes it.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate that clients must trust.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.certificates.authority()
    }

    pub(super) fn listener(&self) -> String {
        format!("SECURED://127.0.0.1:{}", self.port)
    }

    /// What `StorageTool format` has to store of the user.
    pub(super) fn credentials(&self) -> [String; 4] {
        let Login { user, password } = &self.login;
        let of = |mechanism| format!("{mechanism}=[name={user},password={password}]");
        let add = || "--add-scram".to_owned();
        [add(), of("SCRAM-SHA-256"), add(), of("SCRAM-SHA-512")]
    }

    pub(super) fn properties(&self, folder: &Path) -> [(&'static str, String); 8] {
        let Login { user, password } = &self.login;
        let module = "org.apache.kafka.common.security";
        let scram = || format!("{module}.scram.ScramLoginModule required;");
        let plain = format!("{module}.plain.PlainLoginModule required user_{user}=\"{password}\";");
        [
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL".to_owned(),
            ),
            ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
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
            ("listener.name.secured.ssl.keystore.type", "PEM".to_owned()),
            (
                "listener.name.secured.ssl.keystore.location",
                keystore(folder).display().to_string(),
            ),
        ]
    }
}

fn keystore(folder: &Path) -> PathBuf {
    folder.join("keystore.pem")
}
