//! What `amqps://` listeners show and ask for: certificates, and their renewal without a restart.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use warren_broker::{CertLogin, SanType};
use warren_reactor::tls::{CertificateOptions, ClientAuth, TlsServerOptions, TlsVersion};

use super::servers::Renew;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the settings say of TLS, in any source of them.
#[derive(clap::Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TlsSettings {
    /// The certificate of amqps:// listeners in PEM, followed by those that vouch for it
    #[arg(long = "tls-cert", value_name = "FILE", env = "WARREN_TLS_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key in PEM
    #[arg(long = "tls-key", value_name = "FILE", env = "WARREN_TLS_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// The authorities in PEM that vouch for the certificates of clients
    #[arg(long = "tls-ca", value_name = "FILE", env = "WARREN_TLS_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// What these authorities have revoked, as lists in PEM: one of each, not out of date
    #[arg(long = "tls-crl", value_name = "FILE", env = "WARREN_TLS_CRL")]
    pub(crate) crl: Option<PathBuf>,
    /// Whether clients are asked for a certificate: none or peer [default: peer with --tls-ca, else none]
    #[arg(long = "tls-verify", value_name = "WHAT", env = "WARREN_TLS_VERIFY")]
    pub(crate) verify: Option<Verify>,
    /// Refuse clients without a certificate
    #[arg(long = "tls-fail-if-no-peer-cert", env = "WARREN_TLS_FAIL_IF_NO_PEER_CERT")]
    pub(crate) fail_if_no_peer_cert: bool,
    /// Which name in a client's certificate is its user, for EXTERNAL: distinguished_name, common_name or
    /// subject_alternative_name [default: distinguished_name]
    #[arg(long = "tls-cert-login-from", value_name = "NAME", env = "WARREN_TLS_CERT_LOGIN_FROM")]
    pub(crate) cert_login_from: Option<LoginFrom>,
    /// The kind of its alternative names: dns, ip, email or uri [default: dns]
    #[arg(
        long = "tls-cert-login-san-type",
        value_name = "KIND",
        env = "WARREN_TLS_CERT_LOGIN_SAN_TYPE"
    )]
    pub(crate) cert_login_san_type: Option<San>,
    /// Which of those names, counted from 0 [default: 0]
    #[arg(
        long = "tls-cert-login-san-index",
        value_name = "INDEX",
        env = "WARREN_TLS_CERT_LOGIN_SAN_INDEX"
    )]
    pub(crate) cert_login_san_index: Option<usize>,
    /// The oldest version of TLS that is spoken: 1.2 or 1.3 [default: 1.2]
    #[arg(long = "tls-min-version", value_name = "VERSION", env = "WARREN_TLS_MIN_VERSION")]
    pub(crate) min_version: Option<MinVersion>,
    /// Another certificate for clients that ask for this host: HOST=CERT,KEY; may be repeated
    #[arg(
        long = "tls-sni",
        value_name = "HOST=CERT,KEY",
        env = "WARREN_TLS_SNI",
        value_delimiter = ';'
    )]
    pub(crate) sni: Vec<Named>,
}

/// Whether clients are asked for a certificate.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verify {
    /// They are not.
    None,
    /// They are, and what they show must be good.
    Peer,
}

/// The oldest version that is spoken.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum MinVersion {
    /// TLS 1.2.
    #[value(name = "1.2")]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[value(name = "1.3")]
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which name in a certificate is the user's.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "what RabbitMQ calls them")]
pub(crate) enum LoginFrom {
    /// The whole name of its subject.
    DistinguishedName,
    /// What that is called.
    CommonName,
    /// Another name of its.
    SubjectAlternativeName,
}

/// A kind of other names.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum San {
    /// A host.
    Dns,
    /// An address of the network.
    Ip,
    /// An address for mail.
    Email,
    /// A URI.
    Uri,
}

impl From<San> for SanType {
    fn from(san: San) -> Self {
        match san {
            San::Dns => Self::Dns,
            San::Ip => Self::Ip,
            San::Email => Self::Email,
            San::Uri => Self::Uri,
        }
    }
}

/// A certificate for clients that ask for a host.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(crate) struct Named {
    host: String,
    cert: PathBuf,
    key: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, files) = text.split_once('=').unwrap_or_default();
        let (cert, key) = files.split_once(',').unwrap_or_default();
        if host.is_empty() || cert.is_empty() || key.is_empty() {
            return Err(format!("'{text}' is not HOST=CERT,KEY"));
        }
        Ok(Self { host: host.into(), cert: cert.into(), key: key.into() })
    }
}

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TlsSettings {
    /// With what `file` says where the command line and the environment say nothing.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            cert: self.cert.or(file.cert),
            key: self.key.or(file.key),
            ca: self.ca.or(file.ca),
            crl: self.crl.or(file.crl),
            verify: self.verify.or(file.verify),
            fail_if_no_peer_cert: self.fail_if_no_peer_cert || file.fail_if_no_peer_cert,
            cert_login_from: self.cert_login_from.or(file.cert_login_from),
            cert_login_san_type: self.cert_login_san_type.or(file.cert_login_san_type),
            cert_login_san_index: self.cert_login_san_index.or(file.cert_login_san_index),
            min_version: self.min_version.or(file.min_version),
            sni: if self.sni.is_empty() { file.sni } else { self.sni },
        }
    }

    /// Whether clients are asked for a certificate.
    fn verify(&self) -> Verify {
        self.verify.unwrap_or(match self.ca {
            Some(_) => Verify::Peer,
            None => Verify::None,
        })
    }

    /// Whether clients can show certificates.
    pub(crate) fn has_certificates(&self) -> bool {
        self.verify() == Verify::Peer
    }

    /// Which name in them is the user's.
    ///
    /// # Errors
    /// When it is said twice.
    pub(crate) fn cert_login(&self) -> Result<CertLogin> {
        let (kind, index) = (self.cert_login_san_type, self.cert_login_san_index);
        Ok(match self.cert_login_from.unwrap_or(LoginFrom::DistinguishedName) {
            LoginFrom::SubjectAlternativeName => CertLogin::SubjectAlternativeName {
                kind: kind.map_or_else(SanType::default, SanType::from),
                index: index.unwrap_or(0),
            },
            _ if kind.is_some() || index.is_some() => bail!(
                "--tls-cert-login-san-type and --tls-cert-login-san-index need --tls-cert-login-from subject_alternative_name"
            ),
            LoginFrom::DistinguishedName => CertLogin::DistinguishedName,
            LoginFrom::CommonName => CertLogin::CommonName,
        })
    }

    /// What connections need. Reads the files.
    pub(crate) fn build(&self) -> Result<TlsServerOptions> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            bail!("an amqps:// listener needs a certificate and its key: --tls-cert and --tls-key");
        };
        let mut options = CertificateOptions::from_files(cert, key);
        for named in &self.sni {
            options = options.for_name_files(&named.host, &named.cert, &named.key);
        }
        match (self.verify(), &self.ca) {
            (Verify::None, _) if self.fail_if_no_peer_cert => {
                bail!("--tls-fail-if-no-peer-cert needs --tls-verify peer and --tls-ca");
            }
            (Verify::None, _) if self.crl.is_some() => {
                bail!("--tls-crl needs --tls-verify peer and --tls-ca");
            }
            (Verify::None, _) => {}
            (Verify::Peer, None) => bail!("--tls-verify peer needs the authorities: --tls-ca"),
            (Verify::Peer, Some(ca)) => {
                let auth = match self.fail_if_no_peer_cert {
                    true => ClientAuth::Required,
                    false => ClientAuth::Optional,
                };
                options = options.client_roots_file(ca, auth);
                if let Some(crl) = &self.crl {
                    options = options.client_revocations_file(crl);
                }
            }
        }
        if self.min_version == Some(MinVersion::Tls13) {
            options = options.min_version(TlsVersion::Tls13);
        }
        options.build().context("cannot use the certificates")
    }

    fn files(&self) -> Vec<&Path> {
        let named = self.sni.iter().flat_map(|named| [Some(&named.cert), Some(&named.key)]);
        let first = [&self.cert, &self.key, &self.ca, &self.crl].map(Option::as_ref);
        first.into_iter().chain(named).flatten().map(PathBuf::as_path).collect()
    }

    /// When each file was written last, and how long it is.
    fn seen(&self) -> Vec<Option<(SystemTime, u64)>> {
        let look = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        self.files().into_iter().map(look).collect()
    }
}

/// Reads the certificates again when their files have changed or `asked` is set, for as long as the hub runs.
/// Connections that stand keep theirs; files that are wrong change nothing.
pub(crate) fn keep_fresh(settings: TlsSettings, options: TlsServerOptions, asked: Rc<Renew>) {
    // Before anyone can have changed them.
    let mut seen = settings.seen();
    warren_hub::spawn_raw(move || {
        loop {
            let signalled = asked.0.wait_timeout(LOOK).is_ok();
            asked.0.clear();
            let now = settings.seen();
            if !signalled && now == seen {
                continue;
            }
            seen = now;
            match options.reload() {
                Ok(()) => tracing::info!("the certificates were read again"),
                Err(error) => {
                    tracing::error!("{error}; the certificates of before stay in use");
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Named, TlsSettings};

    fn fails(settings: &TlsSettings, why: &str) {
        let error = settings.build().unwrap_err();
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = TlsSettings::default();
        fails(&none, "--tls-cert and --tls-key");
        let files =
            TlsSettings { cert: Some("/no/cert".into()), key: Some("/no/key".into()), ..none };
        fails(&files, "/no/cert");
        let verify = Some(super::Verify::Peer);
        fails(&TlsSettings { verify, ..files.clone() }, "--tls-ca");
        let crl = Some("crl.pem".into());
        fails(&TlsSettings { crl, ..files.clone() }, "--tls-crl needs --tls-verify peer");
        fails(&TlsSettings { fail_if_no_peer_cert: true, ..files }, "--tls-verify peer");
    }

    #[test]
    fn users_are_found_in_one_place_of_a_certificate() {
        use warren_broker::{CertLogin, SanType};
        let settings = |text: &str| toml::from_str::<TlsSettings>(text).unwrap().cert_login();
        assert_eq!(settings("").unwrap(), CertLogin::DistinguishedName);
        assert_eq!(settings("cert-login-from = 'common_name'").unwrap(), CertLogin::CommonName);
        let other = "cert-login-from = 'subject_alternative_name'\ncert-login-san-type = 'email'";
        let want = CertLogin::SubjectAlternativeName { kind: SanType::Email, index: 0 };
        assert_eq!(settings(other).unwrap(), want);
        assert!(settings("cert-login-san-index = 1").is_err());
    }

    #[test]
    fn a_named_certificate_has_three_parts() {
        assert!("a.example=/c,/k".parse::<Named>().is_ok());
        for text in ["", "a", "a=", "a=/c", "a=/c,", "=/c,/k"] {
            assert!(text.parse::<Named>().is_err(), "{text}");
        }
    }
}
