//! QUIC by quinn: one connection for each pair of hosts, a stream for each message.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

use super::runtime::{Connection, Library, SharedLedger, record};
use crate::{cluster::Spec, transport::frame::MESSAGE_MAX};

/// The name in the certificate.
const NAME: &str = "peyk-cluster";

/// Streams in flight on one connection; quinn's own default would be a limit of this benchmark.
const STREAMS: u32 = 10_000;

/// A certificate and its key, both DER.
pub fn identity() -> Result<(Vec<u8>, Vec<u8>)> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("making a certificate")?;
    Ok((made.cert.der().to_vec(), made.signing_key.serialize_der()))
}

/// quinn.
pub struct Quic {
    client: ClientConfig,
    server: ServerConfig,
    endpoint: Option<Endpoint>,
}

impl Quic {
    /// With the identity that all nodes share.
    pub fn new(spec: &Spec) -> Result<Quic> {
        let (certificate, key) = spec.identity.clone().context("QUIC needs a certificate")?;
        let certificate = CertificateDer::from(certificate);
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS));
        // One packet for one place in a queue, as for the others.
        transport.enable_segmentation_offload(false);
        let transport = Arc::new(transport);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        client.transport_config(transport.clone());
        let key = PrivatePkcs8KeyDer::from(key);
        let mut server = ServerConfig::with_single_cert(vec![certificate], key.into())?;
        server.transport_config(transport);
        Ok(Quic { client, server, endpoint: None })
    }
}

impl Library for Quic {
    type Connection = Streams;

    async fn serve(&mut self, ip: IpAddr, ledger: SharedLedger) -> Result<String> {
        let mut endpoint = Endpoint::server(self.server.clone(), SocketAddr::new(ip, 0))
            .with_context(|| format!("binding UDP to {ip}"))?;
        endpoint.set_default_client_config(self.client.clone());
        let address = endpoint.local_addr().context("asking for the port")?;
        self.endpoint = Some(endpoint.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        answer_all(connection, ledger).await;
                    }
                });
            }
        });
        Ok(address.to_string())
    }

    async fn connect(&self, address: &str) -> Result<Streams> {
        let endpoint = self.endpoint.as_ref().context("not started")?;
        let connection = endpoint.connect(address.parse().context("an address")?, NAME)?.await?;
        Ok(Streams { connection })
    }

    fn retransmitted(&self, connections: &[Option<Streams>]) -> u64 {
        connections.iter().flatten().map(|streams| streams.connection.stats().path.lost_packets).sum()
    }
}

/// Answers every stream of a connection until that ends.
async fn answer_all(connection: quinn::Connection, ledger: SharedLedger) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let Ok(request) = receive.read_to_end(MESSAGE_MAX).await else { return };
            record(&ledger, &request);
            if send.write_chunk(Bytes::from(request)).await.is_ok() {
                let _ = send.finish();
            }
        });
    }
}

/// A connection as the client sees it.
#[derive(Clone)]
pub struct Streams {
    connection: quinn::Connection,
}

impl Connection for Streams {
    async fn call(self, request: Bytes) -> Result<Bytes> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        send.write_chunk(request).await?;
        send.finish().map_err(|e| anyhow!("ending a stream: {e}"))?;
        Ok(receive.read_to_end(MESSAGE_MAX).await?.into())
    }
}
