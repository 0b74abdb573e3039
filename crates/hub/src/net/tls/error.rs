//! rustls' errors with what to do about them.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, InconsistentKeys, InvalidMessage};

/// What went wrong in TLS, and what can be done about it: the inner error of the [`io::Error`]s that TLS gives.
#[derive(Debug)]
pub struct TlsError(rustls::Error);

impl TlsError {
    /// rustls' own account of it.
    pub fn rustls(&self) -> &rustls::Error {
        &self.0
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match advice(&self.0) {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// An error of what the peer sent, `InvalidData`, with a text that says what to do.
pub fn explain(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, TlsError(error))
}

/// An error of our own settings.
pub(super) fn unusable(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, TlsError(error))
}

fn advice(error: &rustls::Error) -> Option<&'static str> {
    use rustls::Error as E;
    Some(match error {
        E::InvalidCertificate(certificate) => return of_certificate(certificate),
        E::AlertReceived(alert) => return of_alert(*alert),
        E::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS here; is this the right port, or does it want STARTTLS first?"
        }
        E::InvalidMessage(_) | E::InappropriateMessage { .. } => {
            "what the peer sent is no TLS, or not at its place"
        }
        E::DecryptError => {
            "the bytes were changed on their way, or were not meant for this connection"
        }
        E::NoCertificatesPresented => {
            "the peer must show a certificate and has none: give the client one, or do not require it"
        }
        E::NoApplicationProtocol => {
            "the peer speaks none of the protocols named for ALPN: name one that it offers, or none at all"
        }
        E::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the private key is not the one of the first certificate in the chain"
        }
        E::PeerIncompatible(_) => {
            "both sides have no version, cipher or algorithm in common: one of them is too old, or allows too little"
        }
        _ => return None,
    })
}

fn of_certificate(error: &CertificateError) -> Option<&'static str> {
    use CertificateError as E;
    Some(match error {
        E::UnknownIssuer => {
            "no trusted authority vouches for the peer's certificate: trust its authority if it is your own, or have \
             the peer send the certificates between its own and the authority's"
        }
        E::Expired | E::ExpiredContext { .. } => {
            "the peer's certificate is too old: it must be renewed, or this machine's clock is wrong"
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet: is this machine's clock wrong?"
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "the certificate is made out to another name: connect by the name it has, or have it made out to this one"
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "the certificate is not meant for this side of a connection (its extended key usage)"
        }
        E::BadEncoding | E::BadSignature => "the certificate is damaged or forged",
        E::Revoked => "the certificate has been revoked: the peer needs a new one",
        _ => return None,
    })
}

/// The peer has given up, and says why.
fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as A;
    Some(match alert {
        A::UnknownCA => {
            "the peer does not trust the authority of our certificate: have the peer trust it, or send the \
             certificates between"
        }
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            "the peer does not accept our certificate; its log may say why"
        }
        A::CertificateExpired => "the peer says that our certificate is too old",
        A::CertificateRequired => "the peer wants a certificate of ours, and none is set",
        A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => {
            "the peer and we have no version, cipher or algorithm in common"
        }
        A::NoApplicationProtocol => "the peer speaks none of the protocols that we named for ALPN",
        A::UnrecognisedName => "the peer has no certificate for the name that we asked for",
        _ => return None,
    })
}
