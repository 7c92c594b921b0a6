//! Two clients: tonic's, and one that sees the frames of a response and has no timer of its own.

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::in_time;
use crate::server::{CLASSIFY, CLASSIFY_EACH, Digit, Digits, Image, Images};

/// tonic's client. A clone has the same connection.
#[derive(Clone)]
pub(crate) struct Client(Channel);

impl Client {
    pub(crate) async fn connect(digits: &Digits) -> Self {
        let endpoint = Endpoint::new(format!("http://{}", digits.address)).unwrap();
        Self(in_time(endpoint.connect()).await.unwrap())
    }

    /// A call that keeps nothing of its arguments.
    pub(crate) fn classify(&self, pixels: &[f32]) -> impl Future<Output = Result<Digit, Status>> + Send + use<> {
        self.clone().unary(tonic::Request::new(Image { pixels: pixels.to_vec() }))
    }

    /// A call that waits for a permit of [`Digits::calls`] before its batch.
    pub(crate) fn classify_later(&self, pixels: &[f32]) -> impl Future<Output = Result<Digit, Status>> + Send + use<> {
        let mut request = tonic::Request::new(Image { pixels: pixels.to_vec() });
        request.metadata_mut().insert("wait", MetadataValue::from_static("yes"));
        self.clone().unary(request)
    }

    async fn unary(self, request: tonic::Request<Image>) -> Result<Digit, Status> {
        let mut grpc = Grpc::new(self.0);
        grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let codec = ProstCodec::<Image, Digit>::default();
        Ok(grpc.unary(request, PathAndQuery::from_static(CLASSIFY), codec).await?.into_inner())
    }

    pub(crate) async fn classify_each(&self, images: &[&[f32]]) -> Result<Streaming<Digit>, Status> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let images = images.iter().map(|pixels| Image { pixels: pixels.to_vec() }).collect();
        let (request, codec) = (tonic::Request::new(Images { images }), ProstCodec::<Images, Digit>::default());
        let path = PathAndQuery::from_static(CLASSIFY_EACH);
        Ok(grpc.server_streaming(request, path, codec).await?.into_inner())
    }
}

/// A client of HTTP/2 alone.
#[derive(Clone)]
pub(crate) struct Plain {
    client: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    base: String,
}

/// A unary response as it came.
#[derive(Debug)]
pub(crate) struct Received {
    /// The headers, in which the status is if there is nothing else.
    pub(crate) headers: HeaderMap,
    /// Whether the response ended with its headers.
    pub(crate) trailers_only: bool,
    pub(crate) message: Option<Digit>,
    pub(crate) status: Code,
}

impl Plain {
    pub(crate) fn new(digits: &Digits) -> Self {
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { client, base: format!("http://{}", digits.address) }
    }

    /// A unary call with this `grpc-timeout`, if any.
    pub(crate) async fn classify(&self, timeout: Option<&str>, pixels: &[f32]) -> Received {
        let message = Image { pixels: pixels.to_vec() }.encode_to_vec();
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(message.len() as u32);
        frame.put_slice(&message);
        let mut request = Request::post(format!("{}{CLASSIFY}", self.base))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let response = self.client.request(request.body(Full::new(frame.freeze())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let trailers_only = body.is_end_stream();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status")).expect("every response has one");
        let data = collected.to_bytes();
        let message = (data.len() > 5).then(|| Digit::decode(&data[5..]).unwrap());
        let status = Code::from_bytes(status.as_bytes());
        Received { headers: parts.headers, trailers_only, message, status }
    }
}
