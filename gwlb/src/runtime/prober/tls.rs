//! TLS towards health ports: which certificates are taken, and the handshake.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version::TLS12,
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{HealthCheck, HealthProtocol};

/// What a health check's `ca_file` lacks.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} as the CA of a health check: {reason}", path.display())]
pub(in crate::runtime) struct CaFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: CaFileReason,
}

/// What is wrong with a CA file.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum CaFileReason {
    /// The file cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// It is not PEM.
    #[error("it is no PEM file: {0}")]
    Pem(pem::Error),
    /// There is no `BEGIN CERTIFICATE` in it.
    #[error("there is no certificate in it")]
    Empty,
    /// A certificate cannot be used.
    #[error("certificate {number} in it: {error}")]
    Certificate {
        /// Which one, from 1 on.
        number: usize,
        /// What is wrong.
        error: rustls::Error,
    },
    /// The verifier does not take them together.
    #[error("{0}")]
    Verifier(rustls::client::VerifierBuilderError),
}

/// What the probes of a target group need for TLS; none unless the protocol is HTTPS. To be made
/// once for all of them.
///
/// With a CA file, targets have to show a certificate from there, or one that it signed, for the
/// name that is asked for. Without one they may show what they like, as with AWS's and Alibaba's
/// health checks. TLS 1.2 and 1.3 are spoken.
///
/// # Errors
/// [`CaFileError`] says what is wrong with the file.
pub(in crate::runtime) fn client_config(
    health: &HealthCheck,
) -> Result<Option<Arc<ClientConfig>>, CaFileError> {
    if health.protocol != HealthProtocol::Https {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &health.ca_file {
        None => Arc::new(Unverified),
        Some(path) => {
            let verifier = Verified::read(path, &provider);
            Arc::new(verifier.map_err(|reason| CaFileError { path: path.clone(), reason })?)
        }
    };
    Ok(Some(Arc::new(config(provider, verifier))))
}

#[expect(clippy::expect_used, reason = "ring has suites for both versions")]
fn config(provider: Arc<CryptoProvider>, verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12, &TLS13])
        .expect("ring speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A resumed session would say nothing about the certificate that is shown today.
    config.resumption = Resumption::disabled();
    config
}

/// The name that a target has to prove, and that is asked for (SNI) if it is a DNS name: the
/// configured host, else the target's address.
pub(super) fn server_name(
    health: &HealthCheck,
    address: SocketAddr,
) -> Option<ServerName<'static>> {
    match &health.host {
        Some(host) => ServerName::try_from(host.clone()).ok(),
        None => Some(ServerName::from(address.ip())),
    }
}

/// Shakes hands over `stream`.
pub(super) async fn connect(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    TlsConnector::from(config).connect(name, stream).await
}

/// Takes what a file of certificates vouches for.
#[derive(Debug)]
struct Verified {
    /// As they stand in the file. One of them may be the target's own: tools make self-signed
    /// certificates as those of a CA, which no chain may end in.
    certificates: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Verified {
    fn read(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, CaFileReason> {
        let text = std::fs::read(path).map_err(CaFileReason::Read)?;
        let certificates = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(CaFileReason::Pem)?;
        if certificates.is_empty() {
            return Err(CaFileReason::Empty);
        }
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(&certificates) {
            roots
                .add(certificate.clone())
                .map_err(|error| CaFileReason::Certificate { number, error })?;
        }
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(CaFileReason::Verifier)?;
        Ok(Self { certificates, chains })
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Takes everything: without a CA nothing that a target shows proves who it is, its signatures no
/// more than its certificate. Old appliances have certificates that no library would read.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// All that there are: what is offered is what a target may sign with.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]
    }
}
