//! An authority that exists for one test, and the certificates that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// A certificate and its private key, both PEM.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The common name.
    pub(super) name: &'a str,
    /// The organisation; Kubernetes takes it for the group.
    pub(super) organization: Option<&'a str>,
    /// The host names and addresses of a server.
    pub(super) hosts: &'a [&'a str],
}

impl<'a> Subject<'a> {
    /// Somebody with a name and nothing else.
    pub(super) fn named(name: &'a str) -> Self {
        Self {
            name,
            organization: None,
            hosts: &[],
        }
    }
}

/// The authority.
#[derive(Debug)]
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut parameters = parameters(Subject::named("task tests"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let signed = CertifiedIssuer::self_signed(parameters, new_key());
        Self(signed.expect("a certificate can be signed"))
    }

    /// Its own certificate, which others must trust.
    pub(super) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate with a key of its own.
    pub(super) fn sign(&self, subject: Subject<'_>, purpose: ExtendedKeyUsagePurpose) -> Signed {
        let mut parameters = parameters(subject);
        parameters.extended_key_usages = vec![purpose];
        parameters.use_authority_key_identifier_extension = true;
        let key = new_key();
        let certificate = parameters.signed_by(&key, &self.0);
        Signed {
            certificate: certificate.expect("a certificate can be signed").pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A new key for signatures.
pub(super) fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn parameters(subject: Subject<'_>) -> CertificateParams {
    let hosts: Vec<String> = subject.hosts.iter().map(|&host| host.to_owned()).collect();
    let mut parameters = CertificateParams::new(hosts).expect("the names are valid");
    let name = &mut parameters.distinguished_name;
    name.push(DnType::CommonName, subject.name);
    if let Some(organization) = subject.organization {
        name.push(DnType::OrganizationName, organization);
    }
    parameters
}
