//! A visitor: a browser that looks at nobody's certificate, since instances make their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use latchkey_cluster_tests::TestError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection that stays open between requests.
pub(crate) struct Visitor(TlsStream<TcpStream>);

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl Visitor {
    /// Connects to a proxy and asks for a host.
    pub(crate) async fn ask(proxy: SocketAddr, host: &str) -> Result<Self, TestError> {
        let config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned())?;
        let connect = async {
            let stream = TcpStream::connect(proxy).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        Ok(Self(tokio::time::timeout(Duration::from_secs(30), connect).await??))
    }

    /// One page.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Result<String, TestError> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let exchange = async {
            self.0.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            loop {
                let mut some = [0; 4096];
                let read = self.0.read(&mut some).await?;
                if read == 0 {
                    return Err("the connection ended".into());
                }
                answer.extend_from_slice(&some[..read]);
                let text = String::from_utf8_lossy(&answer);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
                });
                if length.is_some_and(|length| body.len() >= length) {
                    return Ok::<_, TestError>(body.to_owned());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), exchange).await?
    }

    /// Connects, asks for one page, goes.
    pub(crate) async fn page(proxy: SocketAddr, host: &str) -> Result<String, TestError> {
        Self::ask(proxy, host).await?.get(host, "/").await
    }
}
