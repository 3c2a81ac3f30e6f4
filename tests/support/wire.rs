//! An upstream that is a script of bytes, for what no well-behaved one does.
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A whole answer: comments, both line ends, characters of many bytes, usage and the end.
pub(crate) const STREAM: &str = concat!(
    ": comment\r\n\r\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"hé😀\"},\"finish_reason\":null}]}\r\n\r\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    "data: [DONE]\n\n"
);

/// A raw upstream: each connection is given to the script with its number. It ends with the test.
pub(crate) async fn scripted<F, R>(script: F) -> SocketAddr
where
    F: Fn(usize, Wire) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(follow(listener, script));
    address
}

/// Gives each connection of a listener to the script. When this is dropped, so are all connections.
pub(crate) async fn follow<F, R>(listener: TcpListener, script: F)
where
    F: Fn(usize, Wire) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(script(number, Wire(stream)));
    }
}

/// One connection, as bytes.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    /// Reads one request with its body and gives back all of it; empty when the connection was closed.
    pub(crate) async fn request(&mut self) -> String {
        let mut seen = Vec::new();
        loop {
            let mut part = [0; 8192];
            let count = self.0.read(&mut part).await.unwrap_or(0);
            if count == 0 {
                return String::from_utf8(seen).unwrap();
            }
            seen.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&seen);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .map_or(0, |rest| {
                        rest.split("\r\n").next().unwrap().parse::<usize>().unwrap()
                    });
                if body.len() >= length {
                    return text.into_owned();
                }
            }
        }
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn answer(&mut self, status: u16, headers: &str, body: &str) {
        self.say(&format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        ))
        .await;
    }

    pub(crate) async fn stream(&mut self, text: &str) {
        self.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
        self.chunk(text).await;
    }

    pub(crate) async fn chunk(&mut self, text: &str) {
        self.say(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// Waits until the other side closed.
    pub(crate) async fn closed(&mut self) {
        let mut rest = [0; 1024];
        while !matches!(self.0.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}
