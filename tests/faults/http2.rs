//! HTTP/2 frames in any order, also in orders that no correct client sends.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use crate::support::{Raw, soon};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The error code CANCEL.
pub(crate) const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of `GET path`: the static table's `:method GET` and `:scheme http`, then a literal `:path` and
/// `:authority` (RFC 7541, appendix A).
pub(crate) fn get(path: &str) -> Vec<u8> {
    [&[0x82, 0x86][..], &literal(4, path), &literal(1, "localhost")].concat()
}

/// The header block of `POST path` with a body in JSON.
pub(crate) fn post(path: &str) -> Vec<u8> {
    let mut block = get(path);
    // `:method POST` has index 3. `content-type` has index 31, of which the first byte holds 15.
    block[0] = 0x83;
    [&block, &[0x0f, 31 - 15, 16][..], b"application/json"].concat()
}

/// A literal header field with an indexed name, without indexing of the field.
fn literal(name: u8, value: &str) -> Vec<u8> {
    [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// A connection on which both sides have exchanged their settings.
pub(crate) async fn connect(address: SocketAddr) -> Raw {
    let mut connection = Raw::connect(address).await;
    connection.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
    loop {
        let frame = read(&mut connection).await.expect("the server says its settings");
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            break;
        }
    }
    connection.send(frame(SETTINGS, ACK, 0, &[])).await;
    connection
}

/// The next frame, or `None` if the connection is over.
pub(crate) async fn read(connection: &mut Raw) -> Option<Frame> {
    let mut head = [0; 9];
    soon(connection.stream.read_exact(&mut head)).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    soon(connection.stream.read_exact(&mut payload)).await.ok()?;
    Some(Frame { kind: head[3], flags: head[4], payload })
}

/// Sends a ping and waits for its answer, so the server has read all frames before it. Returns the frames before the
/// answer.
pub(crate) async fn ping(connection: &mut Raw) -> Vec<Frame> {
    connection.send(frame(PING, 0, 0, b"all read")).await;
    let mut before = Vec::new();
    while let Some(frame) = read(connection).await {
        if frame.kind == PING && frame.flags & ACK != 0 {
            return before;
        }
        before.push(frame);
    }
    panic!("the connection is over");
}

/// The error code of the server's GOAWAY, or `None` if the server closes without one.
pub(crate) async fn farewell(connection: &mut Raw) -> Option<u32> {
    let mut code = None;
    while let Some(frame) = read(connection).await {
        if frame.kind == GOAWAY {
            code = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
    code
}
