//! Certificates: trusted, not trusted, wanted from us; and servers that speak something else.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use slipway_registry::{Class, ClientCertificate, Config, HostConfig, Registries, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::fake::{Fake, impatient};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, ca)
        .unwrap();
    (certificate, key)
}

/// A TLS server that answers every connection's first request with an empty 200. Returns its port.
async fn serve(ca: &Ca, clients: Option<&Ca>) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (certificate, key) = leaf(ca, "localhost");
    let builder = match clients {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(clients.der().to_vec())).unwrap();
            ServerConfig::builder()
                .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder
        .with_single_cert(vec![CertificateDer::from(certificate.der().to_vec())], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

async fn ask(port: u16, host: HostConfig) -> Result<bool> {
    let name = format!("localhost:{port}");
    let config = Config {
        hosts: [(name.clone(), host)].into(),
        ..impatient()
    };
    let repository = Registries::new(config)?.repository(&format!("{name}/a").parse().unwrap());
    Ok(repository.head_manifest("1").await?.is_some())
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_given_and_refused_with_advice_when_not() {
    let ca = ca();
    let port = serve(&ca, None).await;
    let trusting = HostConfig {
        ca: Some(ca.pem()),
        ..HostConfig::default()
    };
    assert!(ask(port, trusting).await.unwrap());
    assert!(
        ask(
            port,
            HostConfig {
                skip_tls_verify: true,
                ..HostConfig::default()
            }
        )
        .await
        .unwrap()
    );
    let error = ask(port, HostConfig::default()).await.unwrap_err();
    assert_eq!(error.class(), Class::Tls);
    assert!(error.to_string().contains("`ca`"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_wanted() {
    let (ca, clients) = (ca(), self::ca());
    let port = serve(&ca, Some(&clients)).await;
    let without = HostConfig {
        ca: Some(ca.pem()),
        ..HostConfig::default()
    };
    let (certificate, key) = leaf(&clients, "bob");
    let pair = ClientCertificate::new(certificate.pem(), key.serialize_pem());
    let with = HostConfig {
        client_certificate: Some(pair),
        ..without.clone()
    };
    assert!(ask(port, with).await.unwrap());
    let error = ask(port, without).await.unwrap_err();
    assert!(
        matches!(error.class(), Class::Tls | Class::Unreachable),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_plain_http_registry_is_recognised_and_insecure_advised() {
    let fake = Fake::start().await;
    let error = ask(fake.address.port(), HostConfig::default()).await.unwrap_err();
    assert_eq!(error.class(), Class::Tls);
    assert!(error.to_string().contains("set `insecure`"), "{error}");
    assert!(fake.log().is_empty());
}
