//! A request of the example server that holds a permit until the test lets it go: a stream that its client does not read.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use super::narrow;
use super::process::Example;

/// More lines than the pool and the connection buffer.
const LINES: usize = 1500;

/// A permit of `inference`, held by a stream of predictions. Dropping this ends the stream.
pub(crate) struct Stalled {
    _body: Incoming,
    _sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
}

impl Stalled {
    /// Begins the stream. When this returns, its head has arrived, so the request has a permit.
    pub(crate) async fn begin(example: &Example) -> Self {
        let mut sender = narrow::connect(example).await;
        let lines = Bytes::from(format!("{}\n", json!({ "input": vec![0; 64] })).repeat(LINES));
        let request = Request::post("http://example/v1/classify/stream").body(Full::new(lines)).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self { _body: response.into_body(), _sender: sender }
    }
}
