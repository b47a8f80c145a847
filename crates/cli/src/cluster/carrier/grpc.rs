//! gRPC by tonic: unary calls of bare bytes, one HTTP/2 connection for each pair of hosts.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::IpAddr,
    task::{Context as TaskContext, Poll},
};

use anyhow::{Context, Result, anyhow};
use bytes::{Buf, BufMut, Bytes};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc as Client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc as ServerGrpc, NamedService, UnaryService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use super::runtime::{Connection, Library, SharedLedger, record};
use crate::cluster::usage;

/// Calls in flight on one connection; tonic's own default would be a limit of this benchmark.
const STREAMS: u32 = 10_000;

/// tonic.
pub struct Grpc;

impl Library for Grpc {
    type Connection = Caller;

    async fn serve(&mut self, ip: IpAddr, ledger: SharedLedger) -> Result<String> {
        let listener = TcpListener::bind((ip, 0)).await.with_context(|| format!("binding TCP to {ip}"))?;
        let address = listener.local_addr().context("asking for the port")?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().max_concurrent_streams(STREAMS).add_service(Echo { ledger });
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(address.to_string())
    }

    async fn connect(&self, address: &str) -> Result<Caller> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Caller { client: Client::new(endpoint.connect().await?) })
    }

    fn retransmitted(&self, _: &[Option<Caller>]) -> u64 {
        usage::tcp_retransmitted()
    }
}

/// A connection as the client sees it.
#[derive(Clone)]
pub struct Caller {
    client: Client<Channel>,
}

impl Connection for Caller {
    async fn call(mut self, request: Bytes) -> Result<Bytes> {
        self.client.ready().await.map_err(|e| anyhow!("the connection is gone: {e}"))?;
        let path = http::uri::PathAndQuery::from_static("/peyk.Echo/Echo");
        Ok(self.client.unary(Request::new(request), path, Raw).await?.into_inner())
    }
}

/// The service.
#[derive(Clone)]
struct Echo {
    ledger: SharedLedger,
}

impl NamedService for Echo {
    const NAME: &'static str = "peyk.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(ServerGrpc::new(Raw).unary(echo, request).await) })
    }
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let message = request.into_inner();
        record(&self.ledger, &message);
        ready(Ok(Response::new(message)))
    }
}

/// Messages as they are.
#[derive(Copy, Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
